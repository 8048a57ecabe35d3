"""Kills, freezes and starts again, as its seed says."""

import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import psutil
import redis

from benchmarks.support.chaos.deployment import LEASE_S, Deployment, Part
from tests.support.deployment import supervisors

#: Pause between two blows, in seconds.
PAUSES = (1.5, 5.0)
#: How long a part stays away, in seconds; some are away for longer than a lease.
AWAY = (0.0, 1.0, 3.0, 1.3 * LEASE_S)
#: How long a worker and its jobs stand still, in seconds.
STILL = (0.5 * LEASE_S, 1.5 * LEASE_S)
#: How long a supervisor alone does: another worker has to come to its job meanwhile.
ALONE_S = 4.0 * LEASE_S
#: What was frozen together with its keeper may run for so long after it was thawed, in seconds: no keeper can act
#: before its first turn.
WAKING_S = 2.0


@dataclass
class Monkey:
    """One run of blows. What it does is drawn from `seed` alone; whom a blow meets depends on what runs."""

    deployment: Deployment
    seed: int
    blows: Counter[str] = field(default_factory=Counter)
    #: Jobs of which two attempts ran at once, by the look at the processes themselves.
    doubles: set[str] = field(default_factory=set)
    _frozen: list[tuple[float, list[psutil.Process]]] = field(default_factory=list)
    _waking: dict[psutil.Process, float] = field(default_factory=dict)

    def rage(self, seconds: float) -> None:
        """Strikes for so long."""
        rng = random.Random(self.seed)
        acts: dict[Callable[[random.Random], None], int] = {
            self._kill_job: 4,
            self._kill_worker: 3,
            self._end_worker: 2,
            self._freeze_worker: 2,
            self._freeze_supervisor: 3,
            self._kill_valkey: 2,
            self._empty_valkey: 1,
            self._kill_postgres: 2,
            self._kill_api: 3,
        }
        deck: list[Callable[[random.Random], None]] = []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.rest(rng.uniform(*PAUSES))
            if not deck:  # dealt, not thrown: a short run meets every blow too
                deck = [act for act, weight in acts.items() for _ in range(weight)]
                rng.shuffle(deck)
            act = deck.pop()
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
        processes = [process for process, _ in self.deployment.job_processes()]
        if processes:
            with suppress(psutil.NoSuchProcess):
                rng.choice(processes).kill()

    def _kill_worker(self, rng: random.Random) -> None:
        rng.choice(self.deployment.workers).kill(rng.choice(AWAY))

    def _end_worker(self, rng: random.Random) -> None:
        rng.choice(self.deployment.workers).terminate(rng.choice(AWAY))

    def _freeze_worker(self, rng: random.Random) -> None:
        """As when a machine swaps or a virtual machine is moved: nothing moves, then all goes on where it was."""
        self._freeze(rng.choice(self.deployment.workers).tree(), rng.choice(STILL))

    def _freeze_supervisor(self, rng: random.Random) -> None:
        """Its job's process goes on, and must have ended by itself when the lease is over."""
        with suppress(psutil.NoSuchProcess):
            part = rng.choice(self._busy() or self.deployment.workers[1:])
            self._freeze([one for top in part.tree()[:1] for one in supervisors(top)], ALONE_S)

    def _busy(self) -> list[Part]:
        """Workers that run a job; without that for checks, whose work no other would take up."""
        above = {parent.pid for process, _ in self.deployment.job_processes() for parent in process.parents()}
        return [part for part in self.deployment.workers[1:] if part.process and part.process.pid in above]

    def _freeze(self, processes: list[psutil.Process], seconds: float) -> None:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        self._frozen.append((time.monotonic() + seconds, processes))

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
        for _, processes in due:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.resume()
                    self._waking[process] = now + WAKING_S

    def _watch(self) -> None:
        """Attempts are counted, not processes: one that starts another looks like two of the same for a moment."""
        now = time.monotonic()
        self._waking = {process: awake for process, awake in self._waking.items() if awake > now}
        awake = {name for process, name in self.deployment.job_processes() if process not in self._waking}
        attempts = Counter(name.partition("-")[0] for name in awake)
        self.doubles |= {job for job, count in attempts.items() if count > 1}
