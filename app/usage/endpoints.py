"""``/v1/usage``."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.accounts.caller import Reader
from app.accounts.routes import WorkspaceRoute
from app.usage import service
from app.usage.schemas import Usage
from app.web.fields import Text
from app.web.problems import responses
from app.web.services import ServicesDep, SessionDep

router = APIRouter(prefix="/v1/usage", tags=["usage"], route_class=WorkspaceRoute)


@router.get("", summary="Show what is used", responses=responses(404))
async def get_usage(
    caller: Reader,
    session: SessionDep,
    services: ServicesDep,
    workspace_id: Annotated[Text | None, Query(description="For operators: another workspace than one's own.")] = None,
) -> Usage:
    """What one's workspace keeps and runs, and its limits; for an operator also the live workers and their walls."""
    return await service.usage(session, services.settings, caller, workspace_id)
