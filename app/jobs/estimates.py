"""What a job will come to, for the API, for admission and for claims; and what is learned from jobs that ran."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs import ratios, workers
from app.jobs.inputs import Known
from app.jobs.outcomes import job_memory_bytes, job_threads
from app.recipes import Recipe, RecipeFault, parse_recipe
from app.recipes.estimate import Estimate, Machine, Question, Samples, estimate
from app.tables import Job, Worker
from app.tables.base import Json

#: An estimate of memory is right within this factor: what is beyond a worker by more surely does not fit.
UNCERTAINTY = 2.0
#: What needs least: suggested where a job does not fit.
_SMALLEST = {"steps": [{"method": "quantize.dynamic"}]}
#: The note of an estimate that no job has corrected.
_UNPROVEN = "no such job has run here yet: memory and time are those of another machine"
_GIB = 1024**3
#: The largest number of bytes that a row can hold.
_STORABLE = 2**62


@dataclass(frozen=True)
class Asked:
    """What of a job decides about its estimate. `compute`: any, cpu or gpu."""

    recipe: Recipe
    targets: Sequence[str]
    compute: str


@dataclass(frozen=True)
class Guess:
    """An estimate with what workers there are.

    Attributes:
        raw: before it was corrected by what jobs really took.
        memory_bytes / run_s: after that.
        largest: memory that a job may use on the largest live worker that can run it; None: not known.
        faults: ``does_not_fit`` where it clearly does not.
    """

    raw: Estimate
    memory_bytes: int
    run_s: float
    largest: int | None
    notes: tuple[str, ...]
    faults: tuple[RecipeFault, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether a live worker has enough memory."""
        return self.largest is None or self.memory_bytes <= self.largest

    @property
    def needed_bytes(self) -> int:
        """What a worker must have to claim the job: the estimate, or what the largest has, which may do."""
        return self.memory_bytes if self.largest is None else min(self.memory_bytes, self.largest)

    def to_json(self) -> Json:
        """What is kept on the job."""
        return {
            "size_bytes": self.raw.size_bytes,
            "targets": self.raw.sizes,
            "peak_memory_bytes": self.memory_bytes,
            "run_s": round(self.run_s, 1),
            "raw": {"peak_memory_bytes": self.raw.peak_memory_bytes, "run_s": round(self.raw.run_s, 2)},
        }


async def guess(session: AsyncSession, asked: Asked, known: Known, live: Sequence[Worker]) -> Guess | None:
    """The estimate of a job on `live` workers; None while its model or data is still being checked."""
    if known.model_facts is None or known.unchecked:
        return None
    able = workers.able(asked.targets, asked.compute, live)
    queue = "gpu" if able and all(worker.queue == "gpu" for worker in able) else "cpu"
    machine = Machine(min((job_threads(worker.capabilities) for worker in able), default=1), queue == "gpu")
    raw = estimate(_question(asked.recipe, asked.targets, known, machine))
    methods = [step.method for step in asked.recipe.steps]
    ratio = await ratios.find(session, methods, asked.targets, queue)
    told = f"memory and time are corrected by {ratio.jobs} jobs that ran here" if ratio.jobs else _UNPROVEN
    memory, largest = min(round(raw.peak_memory_bytes * ratio.memory), _STORABLE), _largest(able)
    faults: tuple[RecipeFault, ...] = ()
    # Corrections come from everybody's jobs: they may save a job from a refusal, but not lead to one.
    if largest is not None and min(memory, raw.peak_memory_bytes) / UNCERTAINTY > largest:
        smaller = estimate(_question(parse_recipe(_SMALLEST), asked.targets, known, machine))
        faults = (_does_not_fit(raw, asked.recipe, memory, largest, smaller),)
    return Guess(raw, memory, raw.run_s * ratio.run, largest, (*raw.notes, told), faults)


def why_waiting(job: Job, live: Sequence[Worker]) -> str | None:
    """Why no live worker takes a queued job; None where one can."""
    able = workers.able(job.targets, job.queue or "any", live)
    if not able:
        return f"no live {job.queue or ''} worker offers {', '.join(job.targets)}".replace("  ", " ")
    largest = _largest(able)
    if job.memory_bytes is None or largest is None or job.memory_bytes <= largest:
        return None
    return f"it needs {gib(job.memory_bytes)} of memory, and the largest live worker has {gib(largest)} for a job"


async def learn(session: AsyncSession, job: Job, run_s: float, queue: str) -> None:
    """Compares a job that ran to its end, in its first attempt, with its estimate."""
    raw = (job.estimate or {}).get("raw")
    if raw is None or job.recipe is None or job.attempt != 1 or not job.peak_memory_bytes:
        return
    memory, run = job.peak_memory_bytes / max(raw["peak_memory_bytes"], 1), run_s / max(raw["run_s"], 0.1)
    methods = [step["method"] for step in job.recipe["steps"]]
    await ratios.learn(session, methods, job.targets, queue, memory=memory, run=run)


def more_memory(job: Job, worker: Worker, live: Sequence[Worker]) -> int | None:
    """What a job that ran out of memory on `worker` should ask for; None where no live worker has more."""
    had, largest = job_memory_bytes(worker.capabilities), _largest(workers.able(job.targets, job.queue or "any", live))
    if had is None or largest is None or largest <= had:
        return None
    return max(job.memory_bytes or 0, had + 1)


def gib(size: float) -> str:
    """Bytes for people."""
    return f"{size / _GIB:.1f} GiB"


def _largest(able: Sequence[Worker]) -> int | None:
    """Memory for a job on the largest of these; None where one does not say, or there are none."""
    found = [job_memory_bytes(worker.capabilities) for worker in able]
    return max((size for size in found if size is not None), default=None) if None not in found else None


def _question(recipe: Recipe, targets: Sequence[str], known: Known, machine: Machine) -> Question:
    facts = known.model_facts
    if facts is None or known.model is None:
        raise ValueError("a model that is being checked has no estimate")
    return Question(
        recipe, targets, facts, _samples(known), machine,
        others=known.step_model_facts, file_bytes=known.model.size_bytes,
    )  # fmt: skip


def _samples(known: Known) -> Samples:
    """How many there are; without evaluation data a fifth of the others is held back."""
    counts: dict[str, int] = {}
    for role in known.datasets:
        facts = known.data_facts(role)
        counts[role] = 0 if facts is None else facts.samples
    if "evaluation" not in counts:
        for role in [role for role in ("training", "calibration") if role in counts][:1]:
            counts["evaluation"] = counts[role] // 5
            counts[role] -= counts["evaluation"]
    return Samples(**counts)


def _does_not_fit(raw: Estimate, recipe: Recipe, memory: int, largest: int, smaller: Estimate) -> RecipeFault:
    pointer = "/recipe" if raw.largest is None else f"/recipe/steps/{raw.largest}"
    detail = f"it needs about {gib(memory)} of memory, and the largest live worker has {gib(largest)} for a job: "
    advice = "start a worker with more (MODELPRESS_JOB_MEMORY_BYTES)"
    work = None if raw.largest is None else recipe.steps[raw.largest].effects.work
    if work is not None and work.epochs and work.batch > 1:
        share = largest / memory
        advice += (
            f", or train with a batch_size of {max(1, int(work.batch * share / 2))} or less in place of {work.batch}"
        )
    if smaller.peak_memory_bytes < 0.7 * raw.peak_memory_bytes:
        advice += f"; quantize.dynamic alone needs about {gib(smaller.peak_memory_bytes)}"
    return RecipeFault("does_not_fit", pointer, detail + advice)


def told(found: Guess) -> Mapping[str, Any]:
    """The answer of ``:estimate``."""
    return {
        **{name: value for name, value in found.to_json().items() if name != "raw"},
        "fits": found.fits,
        "notes": [*(fault.detail for fault in found.faults), *found.notes],
    }
