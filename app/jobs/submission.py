"""Takes a job in: everything that is known is checked first, all faults are told at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry.trace import SpanKind
from sqlalchemy.ext.asyncio import AsyncSession

from app import logs, tracing
from app.accounts import quotas
from app.clock import NOW
from app.errors import Conflict
from app.jobs import estimates, inputs, validation, workers
from app.jobs.estimates import Asked
from app.jobs.events import append, state_event
from app.jobs.inputs import Known
from app.jobs.leases import Leases
from app.jobs.schemas import EstimateView, JobRequest
from app.recipes import Recipe, RecipeFault, check_targets
from app.tables import DATASETS, Job, Worker


async def submit(session: AsyncSession, leases: Leases, workspace_id: str, raw: Mapping[str, Any]) -> Job:
    """Queues the job that `raw` asks for; a look is sent once the transaction has committed.

    Raises:
        Invalid: every fault, each with its code and pointer.
        TooManyRequests, Forbidden: see `app.accounts.quotas.hold_job`.
    """
    checked = await _checked(session, leases, workspace_id, raw, settled=True)
    found = await estimates.guess(session, checked.asked, checked.known, checked.live)
    if found is not None and found.faults:
        raise validation.invalid(found.faults)
    job = _row(workspace_id, checked.request, checked.recipe)
    if found is not None:
        job.estimate, job.memory_bytes = found.to_json(), found.needed_bytes
    return await _queue(session, leases, job)


async def _queue(session: AsyncSession, leases: Leases, job: Job) -> Job:
    with tracing.span("job submit", kind=SpanKind.PRODUCER) as span:
        job.trace_parent = tracing.traceparent()
        session.add(job)
        await session.flush()
        await quotas.hold_job(session, leases.settings, job.workspace_id)
        span.set_attribute("modelpress.job_id", job.id)
        logs.bind(job_id=job.id)
        await append(session, job.id, [state_event(job.state, job.attempt, None)])
        await leases.look_for(session, [job])
    return job


async def estimate(session: AsyncSession, leases: Leases, workspace_id: str, raw: Mapping[str, Any]) -> EstimateView:
    """What the job that `raw` asks for will come to; nothing is queued.

    Raises:
        Invalid: what `submit` would refuse it for; that it does not fit is an answer here.
        Conflict: ``inputs_checking``.
    """
    checked = await _checked(session, leases, workspace_id, raw)
    found = await estimates.guess(session, checked.asked, checked.known, checked.live)
    if found is None:
        detail = "The model or its data is still being checked: ask again once it is ready (GET its id)."
        raise Conflict(detail, code="inputs_checking", headers={"Retry-After": "2"})
    return EstimateView.model_validate(estimates.told(found))


@dataclass(frozen=True)
class _Checked:
    """A request that nothing is wrong with, as far as is known."""

    request: JobRequest
    recipe: Recipe
    known: Known
    live: Sequence[Worker]

    @property
    def asked(self) -> Asked:
        return Asked(self.recipe, self.request.targets, self.request.compute)


async def _checked(
    session: AsyncSession, leases: Leases, workspace_id: str, raw: Mapping[str, Any], *, settled: bool = False
) -> _Checked:
    request, faults = validation.parse_request(raw)
    recipe, recipe_faults = validation.resolve_recipe(raw["recipe"]) if "recipe" in raw else (None, [])
    faults += recipe_faults
    known: Known | None = None
    live: Sequence[Worker] = ()
    if request is not None:
        live = await workers.live(session, leases.settings.worker_ttl_s)
        known = await _known(session, workspace_id, request, recipe, settled=settled)
        faults += _faults(request, recipe, known, live)
    if faults or request is None or recipe is None or known is None:
        raise validation.invalid(faults)
    return _Checked(request, recipe, known, live)


async def _known(
    session: AsyncSession, workspace_id: str, request: JobRequest, recipe: Recipe | None, *, settled: bool
) -> Known:
    ids = {"model": request.model_id, **{role: getattr(request, f"{role}_dataset_id") for role in DATASETS}}
    named = recipe.models if recipe is not None else ()
    return await inputs.known_inputs(session, workspace_id, ids, named, settled=settled)


def _faults(request: JobRequest, recipe: Recipe | None, known: Known, live: Sequence[Worker]) -> list[RecipeFault]:
    faults = list(validation.input_faults(request, known))
    if recipe is None:
        return faults
    faults += validation.step_model_faults(recipe, known)
    reach = check_targets(recipe, request.targets)
    faults += reach or validation.offer_faults(request, live)
    faults += validation.need_faults(request, recipe)
    faults += validation.fact_faults(recipe, request.limits, known)
    return faults


def _row(workspace_id: str, request: JobRequest, recipe: Recipe) -> Job:
    return Job(
        workspace_id=workspace_id,
        kind="compress",
        queue=None if request.compute == "any" else request.compute,
        name=request.name,
        tags=request.tags,
        request=request.model_dump(mode="json"),
        recipe=recipe.model_dump(mode="json"),
        targets=list(request.targets),
        model_id=request.model_id,
        step_model_ids=list(recipe.models),
        **{column.key: getattr(request, column.key) for column in DATASETS.values()},
        state="queued",
        attempt=0,
        progress=0.0,
        priority=request.priority,
        max_attempts=request.max_attempts,
        pending_timeout_s=request.timeouts.pending_s,
        run_timeout_s=request.timeouts.run_s,
        looked_at=NOW,
    )
