"""``/v1/models``."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from app.accounts.caller import Member, Reader
from app.accounts.routes import UploadRoute
from app.models import service
from app.models.schemas import ModelFields, ModelView
from app.uploads.schemas import State, request_body
from app.uploads.service import receive
from app.web.content import CONTENT_RESPONSES, Content, send
from app.web.fields import Text
from app.web.pagination import Page, PageDep
from app.web.problems import responses
from app.web.services import ServicesDep, SessionDep

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=UploadRoute)
_BODY = request_body(ModelFields, {"name": "resnet18", "format": "pt2", "upload_id": "upl_..."})


@router.post(
    "",
    status_code=201,
    summary="Upload a model",
    responses=responses(409, 413, 415, 507),
    openapi_extra=_BODY,
)
async def create_model(
    request: Request, response: Response, caller: Member, session: SessionDep, services: ServicesDep
) -> ModelView:
    """Streams the file into the store and has a worker check it: the model is `checking` at first."""
    async with receive(request, services, caller, ModelFields) as upload:
        model = await service.create(session, services, caller, upload)
    response.headers["Location"] = str(request.url_for("get_model", model_id=model.id))
    return ModelView.of(model)


@router.get("", summary="List models", responses=responses())
async def list_models(
    caller: Reader,
    session: SessionDep,
    page: PageDep,
    state: State | None = None,
    name: Annotated[Text | None, Query(description="Exactly this name.")] = None,
) -> Page[ModelView]:
    """Newest first."""
    models, next_cursor = await service.list_page(session, caller, page, {"state": state, "name": name})
    return Page(items=[ModelView.of(model) for model in models], next_cursor=next_cursor)


@router.get("/{model_id}", summary="Show a model", responses=responses(404))
async def get_model(model_id: str, caller: Reader, session: SessionDep) -> ModelView:
    """What it is, and whether it is `ready`."""
    return ModelView.of(await service.get(session, caller, model_id))


@router.delete("/{model_id}", status_code=204, summary="Delete a model", responses=responses(404, 409))
async def delete_model(model_id: str, caller: Member, session: SessionDep) -> None:
    """Refused with `object_in_use` while a job that is not over reads it."""
    await service.delete(session, caller, model_id)


@router.head("/{model_id}/content", include_in_schema=False)
@router.get("/{model_id}/content", summary="Download a model", response_class=Response, responses=CONTENT_RESPONSES)
async def model_content(
    request: Request, model_id: str, caller: Reader, session: SessionDep, services: ServicesDep
) -> Any:
    """The file as it was uploaded, whole or in ranges."""
    model = await service.get(session, caller, model_id)
    return await send(
        request, services.store, Content(model.workspace_id, model.sha256, model.size_bytes, model.filename)
    )
