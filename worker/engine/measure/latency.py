"""Times the float model and the artifact in turns, so that whatever else the machine does hits both."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from worker.engine.measure.remote import Remote

#: Turns of each side, how long a turn lasts, and how many runs it has at least and at most.
ROUNDS, ROUND_S, LEAST, MOST = 8, 0.3, 3, 125
#: A single run beyond this is taken once per turn, or a job would spend its time on being timed.
SLOW_S = 1.5
#: Samples run together for the throughput, and turns for it.
BATCH, BATCH_ROUNDS = 16, 3
#: Rest between turns: threads of the other side's pool still spin for a moment after its last run.
_REST_S = 0.005


@dataclass(frozen=True)
class Times:
    """What one side took.

    Attributes:
        single_s: seconds of runs of one sample.
        batch_s: seconds of runs of `batch` samples; empty where the model takes one at a time.
    """

    single_s: list[float]
    batch_s: list[float]
    batch: int

    def to_json(self) -> dict[str, Any]:
        """``latency_ms: {p50, p90, p99}``, its number of runs, and ``throughput_per_s``."""
        p50, p90, p99 = (round(float(value) * 1e3, 5) for value in np.percentile(self.single_s, [50, 90, 99]))
        per_s = self.batch / float(np.median(self.batch_s)) if self.batch_s else 1 / float(np.median(self.single_s))
        return {
            "latency_ms": {"p50": p50, "p90": p90, "p99": p99},
            "latency_runs": len(self.single_s),
            "throughput_per_s": round(per_s, 3),
        }


def alternate(sides: tuple[Remote, Remote], *, batch: int, rounds: int = ROUNDS) -> tuple[Times, Times]:
    """Time both sides in turns, with their first samples; call it under the host's measuring lock.

    Args:
        sides: the float model and the artifact, open and loaded.
        batch: samples at a time for the throughput; 1: it is told from single runs.
        rounds: turns of each side.
    """
    slowest = max(side.time(1, seconds=ROUND_S, least=2, most=MOST, warm=1)[-1] for side in sides)
    least = 1 if slowest > SLOW_S else LEAST
    single = _turns(sides, 1, rounds=rounds, least=least)
    many = _turns(sides, batch, rounds=BATCH_ROUNDS, least=1) if batch > 1 else ([], [])
    return Times(single[0], many[0], batch), Times(single[1], many[1], batch)


def _turns(sides: tuple[Remote, Remote], batch: int, *, rounds: int, least: int) -> tuple[list[float], list[float]]:
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds):
        # Who goes first changes, so that a drift of the clock frequency favours neither.
        for index in (0, 1) if turn % 2 == 0 else (1, 0):
            time.sleep(_REST_S)
            taken[index].extend(sides[index].time(batch, seconds=ROUND_S, least=least, most=MOST, warm=1))
    return taken
