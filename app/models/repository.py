"""SQL of models."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.tables import Model
from app.web.fields import is_storable
from app.web.pagination import PageRequest


async def find(session: AsyncSession, workspace_id: str, model_id: str, *, lock: bool = False) -> Model | None:
    """The model of this workspace; `lock` keeps it from being deleted or used until the transaction ends."""
    if not is_storable(model_id):
        return None
    statement = select(Model).where(Model.id == model_id, Model.workspace_id == workspace_id)
    return (await session.scalars(statement.with_for_update() if lock else statement)).one_or_none()


async def page_of(
    session: AsyncSession, workspace_id: str, page: PageRequest, filters: dict[str, Any]
) -> tuple[list[Model], str | None]:
    """A page of the workspace's models; `filters`: column -> value, None for any."""
    statement = select(Model).where(Model.workspace_id == workspace_id)
    statement = statement.filter_by(**{name: value for name, value in filters.items() if value is not None})
    return await page.rows(session, statement, Model)


async def insert(session: AsyncSession, model: Model) -> None:
    """Stores a new model."""
    session.add(model)
    await session.flush()


async def delete(session: AsyncSession, model: Model) -> None:
    """Forgets a model; its bytes go with the last reference to them."""
    await session.delete(model)
    await session.flush()
