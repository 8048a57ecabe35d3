"""SQL of jobs as the API shows them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Label, Select, String, func, literal_column, not_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer

from app.db import among
from app.tables import Artifact, Job, Metric
from app.web.fields import is_storable

#: What lists show of the metrics; the rest (per layer, per step, curves) is in the job itself.
LISTED_METRICS = ("baseline", "artifacts")
#: Written out rather than sent as a parameter: plans that are made once for all parameters know the indexes.
_SHOWN = Job.kind == literal_column("'compress'")
_QUEUED = Job.state == literal_column("'queued'")

#: The transaction that wrote the row last: https://www.postgresql.org/docs/current/ddl-system-columns.html
_VERSION: Label[str] = literal_column("jobs.xmin::text", String).label("version")
#: (Workspace, id, what changes with the row) of those jobs among `ids` that are there and not queued.
VERSIONS: Final = select(Job.workspace_id, Job.id, _VERSION).where(among(Job.id), _SHOWN, not_(_QUEUED))
# Made once: to make such a statement takes longer than to execute it.
_METRICS = select(Metric.job_id, Metric.name, Metric.target, Metric.value).where(among(Metric.job_id))
_METRICS = _METRICS.order_by(Metric.name, Metric.target)
_METRICS_OF_A_LIST = _METRICS.where(Metric.name.in_(LISTED_METRICS))
#: Without their manifests, which no list shows.
_ARTIFACTS = select(Artifact).where(among(Artifact.job_id)).order_by(Artifact.target, Artifact.id)
_ARTIFACTS = _ARTIFACTS.options(defer(Artifact.manifest, raiseload=True))
_PLACE = func.row_number().over(order_by=(Job.priority.desc(), Job.created_at, Job.id)).label("place")
_QUEUE = select(Job.id, _PLACE).where(_SHOWN, _QUEUED).subquery()
_PLACES = select(_QUEUE.c.id, _QUEUE.c.place).where(among(_QUEUE.c.id))


async def find(session: AsyncSession, workspace_id: str, job_id: str) -> Job | None:
    """A compression job of this workspace."""
    if not is_storable(job_id):
        return None
    statement = select(Job).where(Job.id == job_id, Job.workspace_id == workspace_id, _SHOWN)
    return (await session.scalars(statement)).one_or_none()


async def state(session: AsyncSession, job_id: str) -> str | None:
    """The state of a job; None where it was deleted."""
    found: str | None = await session.scalar(select(Job.state).where(Job.id == job_id))
    return found


async def metrics_of(
    session: AsyncSession, job_ids: Sequence[str], *, listed: bool = False
) -> Mapping[str, dict[str, Any]]:
    """Job id -> ``{"baseline": {target: {...}}, "artifacts": {target: {...}}, "layers": [...], ...}``.

    Args:
        listed: only `LISTED_METRICS`.
    """
    documents: dict[str, dict[str, Any]] = {}
    rows = await session.execute(_METRICS_OF_A_LIST if listed else _METRICS, {"ids": job_ids})
    for job_id, name, target, value in rows:
        document = documents.setdefault(job_id, {})
        if target:
            document.setdefault(name, {})[target] = value
        else:
            document[name] = value
    return documents


async def artifacts_of(session: AsyncSession, job_ids: Sequence[str]) -> Mapping[str, list[Artifact]]:
    """Job id -> its artifacts, by target; without their manifests."""
    found: dict[str, list[Artifact]] = {}
    for row in await session.scalars(_ARTIFACTS, {"ids": job_ids}):
        found.setdefault(row.job_id, []).append(row)
    return found


async def queue_positions(session: AsyncSession, jobs: Sequence[Job]) -> Mapping[str, int]:
    """Job id -> 1 for the queued job that is next by priority and age, 2 for the one after it, ..."""
    wanted = [job.id for job in jobs if job.state == "queued"]
    if not wanted:
        return {}
    return {row.id: row.place for row in await session.execute(_PLACES, {"ids": wanted})}


def listing(
    workspace_id: str, states: Sequence[str], name: str | None, tags: Sequence[str], model_id: str | None = None
) -> Select[Job]:
    """The compression jobs of a workspace that match every filter given."""
    statement = select(Job).where(Job.workspace_id == workspace_id, _SHOWN)
    if states:
        statement = statement.where(Job.state.in_(states))
    if name is not None:
        statement = statement.where(Job.name == name)
    if model_id is not None:
        statement = statement.where(Job.model_id == model_id)
    for tag in tags:
        key, separator, value = tag.partition(":")
        # Operators that the index of tags knows.
        statement = statement.where(Job.tags.contains({key: value}) if separator else Job.tags.has_key(key))
    return statement
