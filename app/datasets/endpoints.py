"""``/v1/datasets``."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from app.accounts.caller import Member, Reader
from app.accounts.routes import UploadRoute
from app.datasets import service
from app.datasets.schemas import DatasetFields, DatasetView
from app.uploads.schemas import State, request_body
from app.uploads.service import receive
from app.web.content import CONTENT_RESPONSES, Content, send
from app.web.fields import Text
from app.web.pagination import Page, PageDep
from app.web.problems import responses
from app.web.services import ServicesDep, SessionDep

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], route_class=UploadRoute)
_BODY = request_body(DatasetFields, {"name": "digits", "kind": "tensors", "upload_id": "upl_..."})


@router.post(
    "",
    status_code=201,
    summary="Upload a dataset",
    responses=responses(409, 413, 415, 507),
    openapi_extra=_BODY,
)
async def create_dataset(
    request: Request, response: Response, caller: Member, session: SessionDep, services: ServicesDep
) -> DatasetView:
    """Streams the file into the store and has a worker check it: the dataset is `checking` at first."""
    async with receive(request, services, caller, DatasetFields) as upload:
        dataset = await service.create(session, services, caller, upload)
    response.headers["Location"] = str(request.url_for("get_dataset", dataset_id=dataset.id))
    return DatasetView.of(dataset)


@router.get("", summary="List datasets", responses=responses())
async def list_datasets(
    caller: Reader,
    session: SessionDep,
    page: PageDep,
    state: State | None = None,
    name: Annotated[Text | None, Query(description="Exactly this name.")] = None,
) -> Page[DatasetView]:
    """Newest first."""
    datasets, next_cursor = await service.list_page(session, caller, page, {"state": state, "name": name})
    return Page(items=[DatasetView.of(dataset) for dataset in datasets], next_cursor=next_cursor)


@router.get("/{dataset_id}", summary="Show a dataset", responses=responses(404))
async def get_dataset(dataset_id: str, caller: Reader, session: SessionDep) -> DatasetView:
    """What it is, and whether it is `ready`."""
    return DatasetView.of(await service.get(session, caller, dataset_id))


@router.delete("/{dataset_id}", status_code=204, summary="Delete a dataset", responses=responses(404, 409))
async def delete_dataset(dataset_id: str, caller: Member, session: SessionDep) -> None:
    """Refused with `object_in_use` while a job that is not over reads it."""
    await service.delete(session, caller, dataset_id)


@router.head("/{dataset_id}/content", include_in_schema=False)
@router.get("/{dataset_id}/content", summary="Download a dataset", response_class=Response, responses=CONTENT_RESPONSES)
async def dataset_content(
    request: Request, dataset_id: str, caller: Reader, session: SessionDep, services: ServicesDep
) -> Any:
    """The file as it was uploaded, whole or in ranges."""
    dataset = await service.get(session, caller, dataset_id)
    return await send(
        request, services.store, Content(dataset.workspace_id, dataset.sha256, dataset.size_bytes, dataset.filename)
    )
