"""What can be done with datasets."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts import quotas
from app.accounts.caller import Caller
from app.datasets import repository
from app.datasets.schemas import DatasetFields
from app.errors import NotFound
from app.tables import Dataset
from app.uploads import repository as uploads
from app.uploads.service import Arrived, queue_check, refuse_while_used
from app.web.pagination import PageRequest
from app.web.services import Services


async def create(session: AsyncSession, services: Services, caller: Caller, upload: Arrived[DatasetFields]) -> Dataset:
    """Records an uploaded dataset, and has it checked. Raises `Forbidden` where the workspace is full."""
    dataset = Dataset(
        workspace_id=caller.workspace_id,
        name=upload.fields.name,
        filename=upload.filename,
        kind=upload.fields.kind,
        meta=upload.fields.metadata,
        size_bytes=upload.file.size_bytes,
        sha256=upload.file.sha256,
    )
    await repository.insert(session, dataset)
    await quotas.hold_bytes(session, services.settings, caller.workspace_id)
    await queue_check(session, services, dataset)
    await session.refresh(dataset)
    return dataset


async def get(session: AsyncSession, caller: Caller, dataset_id: str, *, lock: bool = False) -> Dataset:
    """The caller's dataset. Raises `NotFound`. `lock`: nobody else uses or deletes it until the transaction ends."""
    dataset = await repository.find(session, caller.workspace_id, dataset_id, lock=lock)
    if dataset is None:
        raise NotFound(f"There is no dataset {dataset_id!r} in this workspace.", code="dataset_not_found")
    return dataset


async def list_page(
    session: AsyncSession, caller: Caller, page: PageRequest, filters: dict[str, Any]
) -> tuple[list[Dataset], str | None]:
    """The caller's datasets, newest first."""
    return await repository.page_of(session, caller.workspace_id, page, filters)


async def delete(session: AsyncSession, caller: Caller, dataset_id: str) -> None:
    """Deletes a dataset that no job is using. Raises `NotFound`, `Conflict`."""
    dataset = await get(session, caller, dataset_id, lock=True)
    await refuse_while_used(session, dataset.id)
    await uploads.cancel_checks(session, dataset.id)
    await repository.delete(session, dataset)
