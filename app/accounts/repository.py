"""SQL of workspaces and keys."""

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

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


async def workspace_exists(session: AsyncSession, workspace_id: str) -> bool:
    """Whether there is a workspace of that id."""
    return await session.get(Workspace, workspace_id) is not None


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


async def find_key(session: AsyncSession, key_id: str) -> Key | None:
    """The key of that id, in any workspace."""
    return await session.get(Key, key_id)


async def live_key(session: AsyncSession, prefix: str) -> Key | None:
    """The key with that public prefix, if it is neither revoked nor expired."""
    found: Key | None = await session.scalar(
        select(Key).where(
            Key.prefix == prefix,
            Key.revoked_at.is_(None),
            Key.expires_at.is_(None) | (Key.expires_at > func.clock_timestamp()),
        )
    )
    return found


async def touch_key(session: AsyncSession, key_id: str) -> None:
    """Notes that a key was used."""
    await session.execute(update(Key).where(Key.id == key_id).values(last_used_at=func.clock_timestamp()))


async def has_keys(session: AsyncSession) -> bool:
    """Whether any key was ever made."""
    return await session.scalar(select(Key.id).limit(1)) is not None


async def keys(session: AsyncSession, workspace_id: str | None, page: PageRequest) -> tuple[list[Key], str | None]:
    """A page of a workspace's keys, or of all."""
    statement = select(Key) if workspace_id is None else select(Key).where(Key.workspace_id == workspace_id)
    return await page.rows(session, statement, Key)


async def revoke(session: AsyncSession, key_id: str) -> None:
    """Revokes a key; repeating it changes nothing."""
    revoked = func.coalesce(Key.revoked_at, func.clock_timestamp())
    await session.execute(update(Key).where(Key.id == key_id).values(revoked_at=revoked))
