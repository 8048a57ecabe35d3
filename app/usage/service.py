"""Adds up what a workspace uses."""

from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts import holdings, quotas
from app.accounts import service as accounts
from app.accounts.caller import Caller, rate_limit
from app.config import Settings
from app.errors import NotFound
from app.jobs import workers
from app.tables import Artifact, Dataset, Model
from app.usage import repository
from app.usage.schemas import JobsUsage, Usage, UsageLimits, WorkerView


async def usage(session: AsyncSession, settings: Settings, caller: Caller, workspace_id: str | None) -> Usage:
    """Of the caller's workspace, or of any for an operator. Raises `NotFound`."""
    chosen = workspace_id or caller.workspace_id
    if not await accounts.sees(session, caller, chosen):
        raise NotFound(f"There is no workspace {chosen!r} that you can see.", code="workspace_not_found")
    jobs = await holdings.jobs_in_work(session, chosen)
    return Usage(
        workspace_id=chosen,
        stored_bytes=await holdings.stored_bytes(session, chosen),
        models=await repository.count(session, Model, chosen),
        datasets=await repository.count(session, Dataset, chosen),
        artifacts=await repository.count(session, Artifact, chosen),
        jobs=JobsUsage(queued=jobs.get("queued", 0), running=jobs.get("running", 0) + jobs.get("canceling", 0)),
        uploads=await holdings.uploads_on_their_way(session, chosen),
        limits=_limits(await quotas.quotas_of(session, settings, chosen), settings),
        workers=await _workers(session, settings) if caller.may("operator") else None,
    )


def _limits(held: quotas.Quotas, settings: Settings) -> UsageLimits:
    rate = rate_limit(settings)
    return UsageLimits(
        stored_bytes=held.stored_bytes,
        jobs=held.jobs,
        uploads=held.uploads,
        requests_per_s=rate.per_s,
        requests_burst=rate.burst,
    )


async def _workers(session: AsyncSession, settings: Settings) -> list[WorkerView]:
    return [WorkerView.of(worker) for worker in await workers.live(session, settings.worker_ttl_s)]
