"""Jobs as the API shows them."""

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncSession

from app.artifacts.schemas import JobArtifactView, addresses
from app.errors import NotFound
from app.jobs import estimates, repository, workers
from app.jobs.schemas import JobView
from app.tables import Job
from app.uploads.repository import uses
from app.web.pagination import Page, PageRequest
from app.web.services import get_services


@dataclass(frozen=True)
class Filters:
    """Which jobs a list shows. `tags`: ``key`` or ``key:value``; `reading`: a model or dataset that they read."""

    states: Sequence[str] = ()
    name: str | None = None
    tags: Sequence[str] = ()
    reading: str | None = None
    model_id: str | None = None


async def get(session: AsyncSession, request: Request, workspace_id: str, job_id: str) -> JobView:
    """One job with everything that was measured. Raises `NotFound`."""
    job = await repository.find(session, workspace_id, job_id)
    if job is None:
        raise NotFound(f"There is no job {job_id[:100]!r} in this workspace.", code="job_not_found")
    return await view(session, request, job)


async def view(session: AsyncSession, request: Request, job: Job) -> JobView:
    """One job with everything that was measured."""
    return (await _views(session, request, [job]))[0]


async def page(
    session: AsyncSession, request: Request, workspace_id: str, filters: Filters, wanted: PageRequest
) -> Page[JobView]:
    """A page of jobs, newest first, with the metrics of a list."""
    statement = repository.listing(workspace_id, filters.states, filters.name, filters.tags, filters.model_id)
    if filters.reading is not None:
        statement = statement.where(uses(filters.reading))
    rows, next_cursor = await wanted.rows(session, statement, Job)
    items = await _views(session, request, rows, listed=True)
    return Page[JobView](items=items, next_cursor=next_cursor)


async def _views(
    session: AsyncSession, request: Request, jobs: Sequence[Job], *, listed: bool = False
) -> list[JobView]:
    if not jobs:
        return []
    ids = [job.id for job in jobs]
    metrics = await repository.metrics_of(session, ids, listed=listed)
    artifacts = await repository.artifacts_of(session, ids)
    positions = await repository.queue_positions(session, jobs)
    waiting = [job for job in jobs if job.state == "queued"]
    live = await workers.live(session, get_services(request).settings.worker_ttl_s) if waiting else []
    notes = {job.id: estimates.why_waiting(job, live) for job in waiting}
    address = addresses(request)
    return [
        JobView.of(
            job,
            metrics=metrics.get(job.id),
            artifacts=[JobArtifactView.of(row, address) for row in artifacts.get(job.id, [])],
            queue_position=positions.get(job.id),
            queue_note=notes.get(job.id),
        )
        for job in jobs
    ]
