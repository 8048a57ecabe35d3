"""``/models``."""

from typing import Annotated

from fastapi import APIRouter, Request, Response

from app.accounts.routes import WorkspaceRoute
from app.jobs import service as jobs
from app.models import service
from app.models.schemas import ModelView
from app.pages.lists import EMPTY_IS_ANY
from app.pages.view import ReaderView
from app.uploads.schemas import State
from app.web.fields import Text
from app.web.pagination import PageDep
from app.web.services import SessionDep

router = APIRouter(prefix="/models", route_class=WorkspaceRoute, include_in_schema=False)


@router.get("")
async def models_page(
    view: ReaderView,
    session: SessionDep,
    page: PageDep,
    state: Annotated[State | None, EMPTY_IS_ANY] = None,
    name: Annotated[Text | None, EMPTY_IS_ANY] = None,
) -> Response:
    """All models, and a place to drop more."""
    filters = {"state": state, "name": name}
    rows, next_cursor = await service.list_page(session, view.known, page, filters)
    models = [ModelView.of(row) for row in rows]
    return view.page("models.html", models=models, filters=filters, next_cursor=next_cursor)


@router.get("/{model_id}")
async def model_page(
    request: Request, view: ReaderView, session: SessionDep, page: PageDep, model_id: str, cursor: str | None = None
) -> Response:
    """What a model is, and what was made of it."""
    caller = view.known
    row = await service.get(session, caller, model_id)
    made = await jobs.page(session, request, caller.workspace_id, jobs.Filters(reading=row.id), page)
    facts = row.facts or {}
    return view.page(
        "model.html",
        model=ModelView.of(row),
        layers=facts.get("layers", []),
        notes=facts.get("notes", []),
        jobs=made.items,
        next_cursor=made.next_cursor,
        continued=cursor is not None,
    )
