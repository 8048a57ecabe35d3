"""SQL of workspaces and keys."""

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import NOW, seconds
from app.tables import Key, Workspace
from app.web.pagination import PageRequest


async def workspace_by_name(session: AsyncSession, name: str) -> Workspace | None:
    """The workspace of that name."""
    found: Workspace | None = await session.scalar(select(Workspace).where(Workspace.name == name))
    return found


async def insert_workspace(session: AsyncSession, name: str) -> Workspace | None:
    """Stores a new workspace; None where the name is taken."""
    statement = insert(Workspace).values(name=name).on_conflict_do_nothing(index_elements=[Workspace.name])
    made: Workspace | None = await session.scalar(statement.returning(Workspace))
    return made


async def find_workspace(session: AsyncSession, workspace_id: str, *, lock: bool = False) -> Workspace | None:
    """The workspace of that id; `lock` lets whoever asks likewise wait for the end of this transaction."""
    statement = select(Workspace).where(Workspace.id == workspace_id)
    # Not the strongest lock: rows that refer to the workspace can still be added meanwhile.
    locked = statement.with_for_update(key_share=True).execution_options(populate_existing=True)
    return (await session.scalars(locked if lock else statement)).one_or_none()


async def workspaces(
    session: AsyncSession, workspace_id: str | None, page: PageRequest
) -> tuple[list[Workspace], str | None]:
    """A page of all workspaces, or the one."""
    statement = select(Workspace) if workspace_id is None else select(Workspace).where(Workspace.id == workspace_id)
    return await page.rows(session, statement, Workspace)


async def insert_key(session: AsyncSession, key: Key) -> None:
    """Stores a new key."""
    session.add(key)
    await session.flush()
    await session.refresh(key)


async def key_by_prefix(session: AsyncSession, prefix: str) -> tuple[Key | None, bool]:
    """The key with that public prefix, and whether it is neither revoked nor expired."""
    row = (await session.execute(select(Key, _live()).where(Key.prefix == prefix))).one_or_none()
    return (row[0], bool(row[1])) if row is not None else (None, False)


async def lock_key(session: AsyncSession, key_id: str) -> tuple[Key | None, bool]:
    """The key of that id, in any workspace, locked; and whether it is neither revoked nor expired."""
    statement = select(Key, _live()).where(Key.id == key_id)
    row = (await session.execute(statement.with_for_update().execution_options(populate_existing=True))).one_or_none()
    return (row[0], bool(row[1])) if row is not None else (None, False)


async def successor(session: AsyncSession, key_id: str) -> str | None:
    """Id of the newest key that was made to replace this one."""
    statement = select(Key.id).where(Key.replaces == key_id).order_by(Key.created_at.desc()).limit(1)
    found: str | None = await session.scalar(statement)
    return found


async def lock_operator_keys(session: AsyncSession) -> set[str]:
    """Ids of the live operators' keys, locked: whoever revokes one waits for whoever revokes another."""
    statement = select(Key.id).where(Key.role == "operator", _live()).order_by(Key.id)
    return set(await session.scalars(statement.with_for_update()))


async def expire_key(session: AsyncSession, key_id: str, after_s: float) -> None:
    """Ends a key in `after_s` seconds, or when it would have ended anyway."""
    end = NOW + seconds(after_s)
    await session.execute(update(Key).where(Key.id == key_id).values(expires_at=func.least(Key.expires_at, end)))


async def touch_key(session: AsyncSession, key_id: str) -> None:
    """Notes that a key was used."""
    await session.execute(update(Key).where(Key.id == key_id).values(last_used_at=NOW))


async def has_keys(session: AsyncSession) -> bool:
    """Whether any key was ever made."""
    return await session.scalar(select(Key.id).limit(1)) is not None


async def keys(session: AsyncSession, workspace_id: str | None, page: PageRequest) -> tuple[list[Key], str | None]:
    """A page of a workspace's keys, or of all."""
    statement = select(Key) if workspace_id is None else select(Key).where(Key.workspace_id == workspace_id)
    return await page.rows(session, statement, Key)


async def revoke(session: AsyncSession, key_id: str) -> None:
    """Revokes a key; repeating it changes nothing."""
    revoked = func.coalesce(Key.revoked_at, NOW)
    await session.execute(update(Key).where(Key.id == key_id).values(revoked_at=revoked))


def _live() -> ColumnElement[bool]:
    return Key.revoked_at.is_(None) & (Key.expires_at.is_(None) | (Key.expires_at > NOW))
