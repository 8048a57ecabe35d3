"""Jobs that were queued before their inputs were known are held against the facts once these are there.

A check that ends and whoever queues a job that reads the same file must not miss each other. So who queues locks the
rows of the inputs first (`known_inputs` with `settled`): a check that ends waits for it and then sees the job, or has
ended and its facts are seen. Checks that end together wait for each other at the jobs that read both files, which
every one of them locks in the order of their ids, after the one input that is its own; the last sees all facts.
"""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs import estimates, inputs
from app.jobs.clean import clean_error
from app.jobs.estimates import Asked
from app.jobs.inputs import Known
from app.jobs.states import Event
from app.jobs.transitions import move
from app.jobs.validation import fact_faults, resolve_recipe
from app.recipes import Limits
from app.tables import Job, Worker


async def fit_to_start(session: AsyncSession, input_id: str, live: Sequence[Worker]) -> list[Job]:
    """The jobs that waited for this input, now that it is known; those that do not fit it are failed."""
    waiting = (await session.scalars(inputs.waiting_on(input_id).with_for_update())).all()
    return [job for job in waiting if await fits(session, job, await known_to(session, job), live)]


async def fits(session: AsyncSession, job: Job, known: Known, live: Sequence[Worker]) -> bool:
    """Whether nothing that is known speaks against a queued job. Keeps its estimate, or fails it."""
    limits = Limits.model_validate(job.request.get("limits", {}))
    recipe, faults = resolve_recipe(job.recipe)
    if recipe is not None:
        faults = list(fact_faults(recipe, limits, known))
    if recipe is not None and not faults:
        guess = await estimates.guess(session, Asked(recipe, job.targets, job.queue or "any"), known, live)
        if guess is not None:
            job.estimate, job.memory_bytes, faults = guess.to_json(), guess.needed_bytes, list(guess.faults)
    if faults:
        await move(session, job, Event.USER_ERROR, error=clean_error(faults[0].code, faults[0].detail))
    return not faults


async def known_to(session: AsyncSession, job: Job, *, settled: bool = False) -> Known:
    """The inputs of a job, as `known_inputs` gives them."""
    ids = inputs.ids_of(job)
    return await inputs.known_inputs(session, job.workspace_id, ids, job.step_model_ids, settled=settled)
