"""What can be done with models."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts import quotas
from app.accounts.caller import Caller
from app.errors import NotFound
from app.models import repository
from app.models.schemas import ModelFields
from app.tables import Model
from app.uploads import repository as uploads
from app.uploads.service import Arrived, queue_check, refuse_while_used
from app.web.pagination import PageRequest
from app.web.services import Services


async def create(session: AsyncSession, services: Services, caller: Caller, upload: Arrived[ModelFields]) -> Model:
    """Records an uploaded model, and has it checked. Raises `Forbidden` where the workspace is full."""
    model = Model(
        workspace_id=caller.workspace_id,
        name=upload.fields.name,
        filename=upload.filename,
        format=upload.fields.format,
        task=upload.fields.task,
        meta=upload.fields.metadata,
        size_bytes=upload.file.size_bytes,
        sha256=upload.file.sha256,
    )
    await repository.insert(session, model)
    await quotas.hold_bytes(session, services.settings, caller.workspace_id)
    await queue_check(session, services, model)
    await session.refresh(model)
    return model


async def get(session: AsyncSession, caller: Caller, model_id: str, *, lock: bool = False) -> Model:
    """The caller's model. Raises `NotFound`. `lock`: nobody else uses or deletes it until the transaction ends."""
    model = await repository.find(session, caller.workspace_id, model_id, lock=lock)
    if model is None:
        raise NotFound(f"There is no model {model_id!r} in this workspace.", code="model_not_found")
    return model


async def list_page(
    session: AsyncSession, caller: Caller, page: PageRequest, filters: dict[str, Any]
) -> tuple[list[Model], str | None]:
    """The caller's models, newest first."""
    return await repository.page_of(session, caller.workspace_id, page, filters)


async def delete(session: AsyncSession, caller: Caller, model_id: str) -> None:
    """Deletes a model that no job is using. Raises `NotFound`, `Conflict`."""
    model = await get(session, caller, model_id, lock=True)
    await refuse_while_used(session, model.id)
    await uploads.cancel_checks(session, model.id)
    await repository.delete(session, model)
