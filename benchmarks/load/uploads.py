"""Several uploads at once beside as many processes that copy and digest the same bytes."""

import multiprocessing
import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Barrier
from typing import Any

from benchmarks.load.machine import Line, cores, pin
from benchmarks.load.site import Site
from benchmarks.uploads import random_file, send, yardstick

AIM = 2.0


def measure(site: Site, options: Namespace) -> Iterator[Line]:
    """Rounds in turn; the ratio of the medians."""
    files = [random_file(site.folder / f"file-{number}", options.mebibytes) for number in range(options.senders)]
    pin(site.pid, set().union(*cores()))  # as the processes that it is compared with
    ours, theirs = [], []
    for _ in range(options.rounds):
        theirs.append(_together(yardstick, [(path, path.with_suffix(".copy")) for path in files]))
        ours.append(_together(send, [(site.url, path, site.key) for path in files]))
    yield Line(f"{options.senders} files of {options.mebibytes} MiB at once, {options.rounds} rounds")
    yield Line(f"cp + sha256 {statistics.median(theirs):6.2f} s")
    yield Line(f"uploads     {statistics.median(ours):6.2f} s")
    yield Line(f"ratio       {statistics.median(ours) / statistics.median(theirs):6.2f}   (aim: at most {AIM:g})")


def _together(action: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> float:
    """Seconds that a process for each of `arguments` take together, from when all have imported what they need."""
    context = multiprocessing.get_context("forkserver")
    ready = context.Barrier(len(arguments) + 1)
    with context.Pool(len(arguments), initializer=_started, initargs=(ready,)) as pool:
        ready.wait(60)
        started = time.perf_counter()
        pool.starmap(action, arguments, chunksize=1)
        return time.perf_counter() - started


def _started(ready: Barrier) -> None:
    """In each process: this module, and with it the actions, are there once it runs."""
    ready.wait(60)
