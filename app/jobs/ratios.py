"""SQL of what jobs really took over what they were estimated to: estimates of a deployment get better with its jobs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.tables import EstimateRatio

#: The newest job counts so much, at least; the estimate itself counts like one job.
_NEWEST = 0.1
#: A single job moves nothing further than this factor: one that was held up for hours says little.
_MOST = 20.0
#: Kind of all jobs of a queue.
_ALL = ("", "")


@dataclass(frozen=True)
class Ratios:
    """Measured over estimated; 1 where nothing is known. `jobs`: how many jobs tell so."""

    memory: float = 1.0
    run: float = 1.0
    jobs: int = 0


async def find(session: AsyncSession, methods: Sequence[str], targets: Sequence[str], queue: str) -> Ratios:
    """Of jobs of this kind; where there were none, of all jobs of the queue."""
    kind = _kind(methods, targets)
    statement = select(EstimateRatio).where(
        EstimateRatio.queue == queue, EstimateRatio.methods.in_([kind[0], ""]), EstimateRatio.targets.in_([kind[1], ""])
    )
    found = {(row.methods, row.targets): row for row in (await session.scalars(statement)).all()}
    row = found.get(kind, found.get(_ALL))
    return Ratios() if row is None else Ratios(math.exp(row.memory), math.exp(row.run), row.jobs)


async def learn(
    session: AsyncSession, methods: Sequence[str], targets: Sequence[str], queue: str, *, memory: float, run: float
) -> None:
    """Takes in one job's ratios of measured to estimated."""
    logs = {"memory": _log(memory), "run": _log(run)}
    for named, wanted in (_kind(methods, targets), _ALL):
        fresh = {name: value / 2 for name, value in logs.items()}
        statement = insert(EstimateRatio).values(methods=named, targets=wanted, queue=queue, jobs=1, **fresh)
        share = func.greatest(1.0 / (EstimateRatio.jobs + 2.0), _NEWEST)
        newer: dict[str, Any] = {
            name: getattr(EstimateRatio, name) + (value - getattr(EstimateRatio, name)) * share
            for name, value in logs.items()
        }
        newer["jobs"] = EstimateRatio.jobs + 1
        await session.execute(
            statement.on_conflict_do_update(index_elements=["methods", "targets", "queue"], set_=newer)
        )


def _kind(methods: Sequence[str], targets: Sequence[str]) -> tuple[str, str]:
    return " ".join(methods), " ".join(sorted(targets))


def _log(ratio: float) -> float:
    return math.log(min(max(ratio, 1 / _MOST), _MOST))
