"""What an administrator does without the API: the first key, workspaces, keys. Talks to the database directly."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts import audit, repository
from app.accounts.credentials import DEFAULT_WORKSPACE
from app.accounts.keys import make_key
from app.config import Settings
from app.db import Database
from app.embedded.folder import write_private
from app.tables import Key, Workspace

T = TypeVar("T")


class AdminError(Exception):
    """It cannot be done; the message says why."""


@dataclass(frozen=True)
class KeyRequest:
    """The key that is wanted."""

    workspace: str
    role: str
    name: str
    expires_at: datetime | None = None


def make_first_key(settings: Settings, path: Path) -> None:
    """Where no key was ever made: writes an operator's key to `path` (0600) and stores its hash."""

    async def work(session: AsyncSession) -> None:
        if await repository.has_keys(session):
            return
        await repository.insert_workspace(session, DEFAULT_WORKSPACE)
        wanted = KeyRequest(DEFAULT_WORKSPACE, "operator", "first key")
        # Written before the commit: a crash between the two leaves a key that nothing knows, and the next start
        # writes another over it; never a key in the database that nobody has.
        write_private(path, await _add_key(session, settings, wanted) + "\n")

    _in_transaction(settings, work)


def create_workspace(settings: Settings, name: str) -> str:
    """Makes a workspace; its id. Raises `AdminError` where the name is taken."""

    async def work(session: AsyncSession) -> str:
        made = await repository.insert_workspace(session, name)
        if made is None:
            raise AdminError(f"there is a workspace {name!r} already")
        audit.record_command(session, "create_workspace", made.id, made.id)
        return made.id

    return _in_transaction(settings, work)


def create_key(settings: Settings, wanted: KeyRequest) -> str:
    """Makes a key; its text, which is kept nowhere else. Raises `AdminError` for an unknown workspace."""
    if wanted.expires_at is not None and wanted.expires_at <= datetime.now(UTC):
        raise AdminError(f"the expiry {wanted.expires_at.isoformat()} is past")
    return _in_transaction(settings, lambda session: _add_key(session, settings, wanted))


async def _add_key(session: AsyncSession, settings: Settings, wanted: KeyRequest) -> str:
    if not settings.key_pepper.get_secret_value():
        raise AdminError("MODELPRESS_KEY_PEPPER is not set: give the one that the API runs with")
    workspace: Workspace | None = await repository.workspace_by_name(session, wanted.workspace)
    if workspace is None:
        raise AdminError(
            f"there is no workspace {wanted.workspace!r}; make it with: modelpress-server workspace create"
        )
    made = make_key(settings.key_pepper)
    key = Key(
        workspace_id=workspace.id,
        name=wanted.name,
        role=wanted.role,
        prefix=made.prefix,
        hash=made.hash,
        expires_at=wanted.expires_at,
    )
    await repository.insert_key(session, key)
    audit.record_command(session, "create_key", workspace.id, key.id)
    return made.text


def _in_transaction(settings: Settings, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    async def run() -> T:
        database = Database(settings, pooled=False)
        try:
            async with database.transaction() as session:
                return await work(session)
        finally:
            await database.close()

    try:
        return asyncio.run(run())
    except OperationalError as error:
        raise AdminError(f"the database is not reachable: {error.orig}") from error
    except ProgrammingError as error:
        raise AdminError(f"the database has no tables yet; run: modelpress-server migrate ({error.orig})") from error
