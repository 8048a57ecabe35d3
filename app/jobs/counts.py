"""What is counted of jobs, in the transaction that makes it true.

So the figures survive restarts and deleted jobs, never go back, and are the same whichever process is asked. They
are gathered while a transaction goes on and added up in its last statement, in a fixed order: a row of `Count`, which
many jobs share, is locked for a moment only, and no two transactions wait for each other.
"""

import bisect
from dataclasses import dataclass

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import before_commit
from app.jobs.states import State
from app.recipes import Limits
from app.tables import Count, Job
from app.tables.base import Json

_PENDING = "counts"
_Key = tuple[str, tuple[str, ...], str]

#: Codes of faults that are told apart; a job's process is not trusted, and could make up any number of them.
FAULT_CODES = frozenset(
    {
        "export_failed",
        "input_missing",
        "internal_error",
        "invalid_report",
        "job_process_died",
        "out_of_memory",
        "runtime_crashed",
        "runtime_failed",
        "runtime_timeout",
        "storage_full",
        "worker_fault",
        "worker_lost",
    }
)


@dataclass(frozen=True)
class Counter:
    """A figure that grows. `name`: as Prometheus knows it, with ``_total``."""

    name: str
    help: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Histogram:
    """How often a value fell below each of `bounds`."""

    name: str
    help: str
    labels: tuple[str, ...]
    bounds: tuple[float, ...]

    def bucket(self, value: float) -> str:
        """The bucket that `value` falls into: the upper bound of it."""
        index = bisect.bisect_left(self.bounds, value)
        return str(self.bounds[index]) if index < len(self.bounds) else "+Inf"


_SECONDS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0, 43200.0)

ENDED = Counter("modelpress_jobs_ended_total", "Jobs that came to their end.", ("method", "outcome"))
RUN = Histogram("modelpress_job_run_seconds", "How long attempts ran.", ("method", "outcome"), _SECONDS)
WAIT = Histogram("modelpress_job_wait_seconds", "How long jobs waited for a worker.", ("queue",), _SECONDS)
FAULTS = Counter("modelpress_job_faults_total", "Attempts that ended by no fault of the input.", ("queue", "code"))
LEASES_LOST = Counter("modelpress_leases_lost_total", "Attempts whose worker went silent.", ("queue",))
GATE_FAILURES = Counter("modelpress_gate_failures_total", "Jobs whose artifact breaks this limit.", ("limit",))
ALL: tuple[Counter | Histogram, ...] = (ENDED, RUN, WAIT, FAULTS, LEASES_LOST, GATE_FAILURES)


def count(session: AsyncSession, counter: Counter, *labels: str) -> None:
    """Counts one more, should this transaction commit."""
    _add(session, (counter.name, labels, ""), 1.0)


def observe(session: AsyncSession, histogram: Histogram, value: float, *labels: str) -> None:
    """Takes one more value into the histogram, should this transaction commit."""
    value = max(value, 0.0)
    _add(session, (histogram.name, labels, histogram.bucket(value)), 1.0)
    _add(session, (histogram.name, labels, "sum"), value)


def queue_of(job: Job) -> str:
    """The queue, as figures name it; ``any`` where a worker of cpu or gpu may take the job."""
    return job.queue or "any"


def method_of(job: Job) -> str:
    """The recipe's one method; ``several`` for a pipeline; the kind of a check."""
    if job.kind != "compress":
        return job.kind
    methods = {str(step.get("method")) for step in (job.recipe or {}).get("steps", [])}
    return methods.pop() if len(methods) == 1 else "several"


def attempt_ended(session: AsyncSession, job: Job, outcome: str, seconds: float) -> None:
    """An attempt ran for so long; `outcome`: a final state, ``requeued`` or ``released``."""
    observe(session, RUN, seconds, method_of(job), outcome)


def job_ended(session: AsyncSession, job: Job, outcome: State) -> None:
    """A job got into a final state."""
    count(session, ENDED, method_of(job), outcome.value)


def claimed(session: AsyncSession, job: Job, *, lost_by: bool) -> None:
    """A worker took the job: out of the queue, or (`lost_by`) from another one that went silent."""
    if lost_by:
        lease_lost(session, job)
    elif job.started_at is not None:
        observe(session, WAIT, (job.started_at - job.queued_at).total_seconds(), queue_of(job))


def lease_lost(session: AsyncSession, job: Job) -> None:
    """A worker went silent while it ran the job."""
    count(session, LEASES_LOST, queue_of(job))


def fault(session: AsyncSession, job: Job, code: str) -> None:
    """An attempt failed through no fault of its input."""
    count(session, FAULTS, queue_of(job), code if code in FAULT_CODES else "other")


def gate_failed(session: AsyncSession, gate: Json) -> None:
    """An artifact breaks limits: each counts once for the job."""
    broken = {str(check.get("limit")) for check in gate.get("checks", []) if not check.get("passed")}
    for limit in {name if name in Limits.model_fields else "other" for name in broken}:
        count(session, GATE_FAILURES, limit)


def _add(session: AsyncSession, key: _Key, value: float) -> None:
    if _PENDING not in session.info:
        session.info[_PENDING] = {}
        before_commit(session, _flush)
    pending: dict[_Key, float] = session.info[_PENDING]
    pending[key] = pending.get(key, 0.0) + value


async def _flush(session: AsyncSession) -> None:
    pending: dict[_Key, float] = session.info.pop(_PENDING)
    rows = [
        {"name": name, "labels": labels, "bucket": bucket, "value": value}
        for (name, labels, bucket), value in sorted(pending.items())
    ]
    statement = insert(Count).values(rows)
    more = {"value": Count.value + statement.excluded.value}
    await session.execute(
        statement.on_conflict_do_update(index_elements=[Count.name, Count.labels, Count.bucket], set_=more),
        execution_options={"synchronize_session": False},
    )
