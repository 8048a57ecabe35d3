"""Kills, freezes and starts again, as its seed says."""

import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import psutil
import redis

from benchmarks.support.chaos.deployment import LEASE_S, Deployment

#: Pause between two blows, in seconds.
PAUSES = (1.5, 5.0)
#: How long a part stays away, in seconds; some are away for longer than a lease.
AWAY = (0.0, 1.0, 3.0, 1.3 * LEASE_S)


@dataclass
class Monkey:
    """One run of blows. What it does is drawn from `seed` alone; whom a blow meets depends on what runs."""

    deployment: Deployment
    seed: int
    blows: Counter[str] = field(default_factory=Counter)
    #: Jobs of which two processes were alive at once, by the look at the processes themselves.
    doubles: set[str] = field(default_factory=set)
    _frozen: list[tuple[float, list[psutil.Process]]] = field(default_factory=list)

    def rage(self, seconds: float) -> None:
        """Strikes for so long."""
        rng = random.Random(self.seed)
        acts: dict[Callable[[random.Random], None], int] = {
            self._kill_job: 4,
            self._kill_worker: 3,
            self._end_worker: 2,
            self._freeze_worker: 2,
            self._kill_valkey: 2,
            self._empty_valkey: 1,
            self._kill_postgres: 2,
            self._kill_api: 3,
        }
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.rest(rng.uniform(*PAUSES))
            (act,) = rng.choices(list(acts), list(acts.values()))
            act(rng)
            self.blows[act.__name__.strip("_").replace("_", " ")] += 1
        self._thaw(everything=True)

    def rest(self, seconds: float) -> None:
        """Waits, tending what is due and watching the processes of jobs."""
        until = time.monotonic() + seconds
        while True:
            self.deployment.tend()
            self._thaw()
            self._watch()
            if time.monotonic() >= until:
                return
            time.sleep(0.1)

    def _kill_job(self, rng: random.Random) -> None:
        processes = self.deployment.job_processes()
        if processes:
            with suppress(psutil.NoSuchProcess):
                rng.choice(processes).kill()

    def _kill_worker(self, rng: random.Random) -> None:
        rng.choice(self.deployment.workers).kill(rng.choice(AWAY))

    def _end_worker(self, rng: random.Random) -> None:
        rng.choice(self.deployment.workers).terminate(rng.choice(AWAY))

    def _freeze_worker(self, rng: random.Random) -> None:
        """As when a machine swaps or a virtual machine is moved: nothing moves, then all goes on where it was."""
        tree = rng.choice(self.deployment.workers).tree()
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        self._frozen.append((time.monotonic() + rng.choice((0.5, 1.5)) * LEASE_S, tree))

    def _kill_valkey(self, rng: random.Random) -> None:
        self.deployment.valkey.kill(rng.choice(AWAY))

    def _empty_valkey(self, rng: random.Random) -> None:
        """Every message is lost."""
        with suppress(redis.RedisError), redis.Redis.from_url(self.deployment.redis_url) as client:
            client.flushall()

    def _kill_postgres(self, rng: random.Random) -> None:
        self.deployment.postgres.kill(rng.choice(AWAY))

    def _kill_api(self, rng: random.Random) -> None:
        self.deployment.api.kill(rng.choice(AWAY))

    def _thaw(self, *, everything: bool = False) -> None:
        now = time.monotonic()
        due = [entry for entry in self._frozen if everything or entry[0] <= now]
        self._frozen = [entry for entry in self._frozen if entry not in due]
        for _, tree in due:
            for process in tree:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def _watch(self) -> None:
        """A frozen process is not counted: nothing of it runs."""
        running: Counter[str] = Counter()
        for process in self.deployment.job_processes():
            with suppress(psutil.NoSuchProcess):
                if process.status() != psutil.STATUS_STOPPED:
                    running[_job_of(process)] += 1
        self.doubles |= {job for job, count in running.items() if count > 1}


def _job_of(process: psutil.Process) -> str:
    """The job's id, out of the folder that its process was given."""
    folder = process.cmdline()[-1]
    return folder[folder.index("job_") :].partition("-")[0]
