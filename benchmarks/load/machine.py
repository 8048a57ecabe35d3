"""The machine that is measured on: who runs on which core, and how many sockets may be open."""

import os
import resource
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Line:
    """A line of the report. `failed`: it tells of something that must not happen at any speed."""

    text: str
    failed: bool = False


def cores() -> tuple[set[int], set[int]]:
    """The core of servers that are measured, and that of their clients: the same where there is but one."""
    available = sorted(os.sched_getaffinity(0))
    return {available[0]}, {available[-1]}


def pin(pid: int, to: set[int]) -> None:
    """Keeps every thread that a process has, and those that they will start, on these cores."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), to)


def raise_open_files() -> None:
    """As many open files as the system lets this process have; children inherit it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that a share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def told_ms(seconds: Sequence[float]) -> str:
    """Median, 99th percentile and largest, in milliseconds."""
    figures = (statistics.median(seconds), quantile(seconds, 0.99), max(seconds))
    return "p50 {:.1f} ms, p99 {:.1f} ms, max {:.1f} ms".format(*(1000 * figure for figure in figures))
