"""SQL of datasets."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.tables import Dataset
from app.web.fields import is_storable
from app.web.pagination import PageRequest


async def find(session: AsyncSession, workspace_id: str, dataset_id: str, *, lock: bool = False) -> Dataset | None:
    """The dataset of this workspace; `lock` keeps it from being deleted or used until the transaction ends."""
    if not is_storable(dataset_id):
        return None
    statement = select(Dataset).where(Dataset.id == dataset_id, Dataset.workspace_id == workspace_id)
    return (await session.scalars(statement.with_for_update() if lock else statement)).one_or_none()


async def page_of(
    session: AsyncSession, workspace_id: str, page: PageRequest, filters: dict[str, Any]
) -> tuple[list[Dataset], str | None]:
    """A page of the workspace's datasets; `filters`: column -> value, None for any."""
    statement = select(Dataset).where(Dataset.workspace_id == workspace_id)
    statement = statement.filter_by(**{name: value for name, value in filters.items() if value is not None})
    return await page.rows(session, statement, Dataset)


async def insert(session: AsyncSession, dataset: Dataset) -> None:
    """Stores a new dataset."""
    session.add(dataset)
    await session.flush()


async def delete(session: AsyncSession, dataset: Dataset) -> None:
    """Forgets a dataset; its bytes go with the last reference to them."""
    await session.delete(dataset)
    await session.flush()
