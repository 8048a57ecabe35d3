"""``/jobs`` and below: lists, a new job, and what one has come to."""

import json
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from app.accounts.routes import WorkspaceRoute
from app.datasets import service as datasets
from app.errors import NotFound
from app.jobs import service as jobs
from app.jobs.schemas import JobView
from app.jobs.states import State
from app.models import service as models
from app.pages import proof, remedies
from app.pages.lists import EMPTY_IS_ANY
from app.pages.snippets import snippet
from app.pages.view import MemberView, ReaderView
from app.tables import DATASETS
from app.tables.jobs import TERMINAL
from app.web.fields import Text
from app.web.pagination import PageDep, PageRequest
from app.web.services import SessionDep

Found = TypeVar("Found")

router = APIRouter(prefix="/jobs", route_class=WorkspaceRoute, include_in_schema=False)
#: What a list of files to choose from shows at most.
CHOICES = PageRequest(200, None)


@router.get("")
async def list_jobs(
    request: Request,
    view: ReaderView,
    session: SessionDep,
    page: PageDep,
    state: Annotated[State | None, EMPTY_IS_ANY] = None,
    name: Annotated[Text | None, EMPTY_IS_ANY] = None,
    tag: Annotated[Text | None, EMPTY_IS_ANY] = None,
) -> Response:
    """The workspace's jobs; filters are part of the address."""
    filters = jobs.Filters(states=[state] if state else (), name=name, tags=[tag] if tag else ())
    found = await jobs.page(session, request, view.known.workspace_id, filters, page)
    asked = {key: value for key, value in (("state", state), ("name", name), ("tag", tag)) if value}
    return view.page(
        "jobs.html",
        jobs=found.items,
        next_cursor=found.next_cursor,
        asked=asked,
        query=urlencode(asked),
        states=list(State),
        first=page.after is None,
    )


@router.get("/new")
async def new_job(
    view: MemberView,
    session: SessionDep,
    model: Annotated[str, Query(max_length=100)] = "",
    source: Annotated[str, Query(alias="from", max_length=100)] = "",
) -> Response:
    """A form for a job; empty, for a model, or filled in from an earlier job."""
    known, _ = await models.list_page(session, view.known, CHOICES, {})
    data, _ = await datasets.list_page(session, view.known, CHOICES, {})
    return view.page("job-new.html", models=known, datasets=data, model=model, source=source)


@router.get("/{job_id}")
async def job_page(request: Request, view: ReaderView, session: SessionDep, job_id: str) -> Response:
    """One job: how far it is, or what it has come to."""
    job = await jobs.get(session, request, view.known.workspace_id, job_id)
    model = await _there(models.get(session, view.known, job.model_id))
    ids = {role: getattr(job, f"{role}_dataset_id") for role in DATASETS}
    data = {
        role: (dataset_id, await _there(datasets.get(session, view.known, dataset_id)))
        for role, dataset_id in ids.items()
        if dataset_id is not None
    }
    layers_head, layers = proof.layers(job.metrics)
    head, rows = proof.steps(job.metrics)
    return view.page(
        "job.html",
        inline_styles=True,  # plotly sets style attributes of its SVG
        job=job,
        over=job.state in TERMINAL,
        model=model,
        data=data,
        artifacts={artifact.target: artifact for artifact in job.artifacts},
        proofs=proof.proofs(job),
        checks=proof.checks(job.gate),
        remedy=remedies.remedy(job),
        steps_head=head,
        steps=rows,
        layers_head=layers_head,
        layers=layers,
        curves=bool(job.metrics and job.metrics.get("curves")),
        pareto=bool(job.metrics and job.metrics.get("pareto")),
        recipe=json.dumps(job.recipe, indent=2),
        snippets=_snippets(job, model.facts if model else None),
        notes=[note for note in (job.metrics or {}).get("notes", []) if isinstance(note, str)],
    )


async def _there(wanted: Coroutine[Any, Any, Found]) -> Found | None:
    """What a job was made of can be deleted once the job is over."""
    try:
        return await wanted
    except NotFound:
        return None


def _snippets(job: JobView, facts: dict[str, object] | None) -> dict[str, str | None]:
    return {artifact.id: snippet(artifact.target, artifact.filename, facts) for artifact in job.artifacts}
