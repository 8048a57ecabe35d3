"""``/datasets``."""

from typing import Annotated

from fastapi import APIRouter, Request, Response

from app.accounts.routes import WorkspaceRoute
from app.datasets import service
from app.datasets.schemas import DatasetView
from app.jobs import service as jobs
from app.pages.lists import EMPTY_IS_ANY
from app.pages.view import ReaderView
from app.uploads.schemas import State
from app.web.fields import Text
from app.web.pagination import PageDep
from app.web.services import SessionDep

router = APIRouter(prefix="/datasets", route_class=WorkspaceRoute, include_in_schema=False)


@router.get("")
async def datasets_page(
    view: ReaderView,
    session: SessionDep,
    page: PageDep,
    state: Annotated[State | None, EMPTY_IS_ANY] = None,
    name: Annotated[Text | None, EMPTY_IS_ANY] = None,
) -> Response:
    """All datasets, and a place to drop more."""
    filters = {"state": state, "name": name}
    rows, next_cursor = await service.list_page(session, view.known, page, filters)
    datasets = [DatasetView.of(row) for row in rows]
    return view.page("datasets.html", datasets=datasets, filters=filters, next_cursor=next_cursor)


@router.get("/{dataset_id}")
async def dataset_page(
    request: Request, view: ReaderView, session: SessionDep, page: PageDep, dataset_id: str, cursor: str | None = None
) -> Response:
    """What a dataset is, and which jobs read it as what."""
    caller = view.known
    row = await service.get(session, caller, dataset_id)
    readers = await jobs.page(session, request, caller.workspace_id, jobs.Filters(reading=row.id), page)
    return view.page(
        "dataset.html",
        dataset=DatasetView.of(row),
        label=(row.facts or {}).get("label"),
        jobs=readers.items,
        next_cursor=readers.next_cursor,
        continued=cursor is not None,
    )
