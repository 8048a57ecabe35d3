"""SQL of what there is in a workspace."""

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession


async def count(session: AsyncSession, table: Any, workspace_id: str) -> int:
    """Rows of `table` in a workspace."""
    statement = select(func.count()).select_from(table).where(table.workspace_id == workspace_id)
    return int(await session.scalar(statement) or 0)
