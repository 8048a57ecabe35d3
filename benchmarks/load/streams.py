"""A thousand open event streams of one running job: how long an event takes from its commit to each of them."""

import asyncio
import json
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator

from app.db import Database
from app.jobs.events import NewEvent
from app.jobs.leases import Leases
from app.jobs.outcomes import Finished, Lease
from app.queue import Queue
from benchmarks.load.machine import Line, cores, pin, quantile, told_ms
from benchmarks.load.rows import running_job
from benchmarks.load.site import Site
from tests.support.servers import ROOT

AIM_S = 1.0


def measure(site: Site, options: Namespace) -> Iterator[Line]:
    """Opens the streams, appends events as a worker does, ends the job, and looks at what came where."""
    lease = running_job(site)
    argv = [sys.executable, "-m", "benchmarks.load.followers", site.url, lease.job_id, str(options.streams), site.key]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=ROOT, text=True) as followers:
        pin(followers.pid, cores()[1])
        if followers.stdout is None or followers.stdout.readline() != "open\n":
            raise RuntimeError("the streams did not open")
        committed = asyncio.run(_append(site, lease, options.events, options.rate))
        arrived: list[dict[str, float]] = json.loads(followers.stdout.read())
    delays = [at - committed[number] for one in arrived for number, at in one.items() if number in committed]
    missed = sum(len(committed.keys() - one.keys()) for one in arrived) + len(committed) * (
        options.streams - len(arrived)
    )
    yield Line(f"{len(arrived)} streams, {options.events} events at {options.rate:g} per second")
    yield Line(f"commit to arrival: {told_ms(delays)}   (aim: p99 at most {AIM_S:g} s)")
    yield Line(f"p99 within the aim: {'yes' if quantile(delays, 0.99) <= AIM_S else 'no'}")
    yield Line(f"{missed} events missed, of {len(committed) * options.streams}", failed=missed > 0)


async def _append(site: Site, lease: Lease, count: int, rate: float) -> dict[str, float]:
    """Appends at `rate` per second, then ends the job; number of each event -> when its commit began."""
    database, leases = Database(site.settings, pooled=False), Leases(site.settings, Queue(site.settings))
    committed = {}
    try:
        started = time.monotonic()
        for number in range(1, count + 1):
            await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
            async with database.transaction() as session:
                event = NewEvent("metric", {"name": "loss", "value": 1 / number, "step": number})
                if not await leases.append_events(session, lease, [event]):
                    raise RuntimeError("the lease was lost")
                committed[str(number)] = time.monotonic()
        async with database.transaction() as session:
            await leases.finish(session, lease, Finished())
    finally:
        await database.close()
    return committed
