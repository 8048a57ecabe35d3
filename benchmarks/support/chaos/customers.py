"""Customers: each sends its jobs through the SDK, whatever is away at the time, and knows how they have to end."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modelpress import Client, Conflict, Event, JobRequest, Retries

from benchmarks.support.chaos.deployment import ATTEMPTS

#: Codes of jobs whose every attempt met a blow: nothing is wrong with them.
LOST = frozenset({"worker_lost", "job_process_died"})
#: Whatever a monkey does is over long before a customer gives up.
PATIENT = Retries(attempts=1000, base_s=0.2, cap_s=2.0)


@dataclass(frozen=True)
class Order:
    """One job, and the states in which it may end."""

    name: str
    steps: Sequence[dict[str, object]]
    ends: tuple[str, ...] = ("succeeded",)
    #: The code of its error, where it fails.
    code: str | None = None
    limits: dict[str, float] = field(default_factory=dict)
    run_s: float = 600.0
    #: Seconds after which it is canceled.
    canceled_after: float | None = None
    followed: bool = False


@dataclass
class Sold:
    """An order that was taken."""

    order: Order
    job_id: str
    events: list[Event] = field(default_factory=list)


METHODS: tuple[dict[str, object], ...] = (
    {"method": "quantize.dynamic"},
    {"method": "quantize.static"},
    {"method": "quantize.float", "format": "float16"},
    {"method": "prune.weights", "sparsity": 0.5},
)
#: Longer than a lease also on an idle machine, so that its process can outlive one; and with checkpoints to go on from.
LONG: dict[str, object] = {"method": "finetune", "epochs": 200}


def orders(count: int, seed: int) -> list[Order]:
    """`count` orders: most succeed, some must fail, some are canceled, a quarter are followed event by event.

    Every sixth trains for longer.
    """
    rng = random.Random(seed)
    made = []
    for number in range(count):
        name, steps = f"chaos-{number}", [rng.choice(METHODS)]
        followed = number % 4 == 0
        match rng.choices(("fine", "broken limit", "too slow", "canceled"), (14, 2, 1, 3))[0]:
            case "broken limit":
                limits = {"max_size_ratio": 0.01}
                order = Order(name, steps, ("failed",), "limits_not_met", limits, followed=followed)
            case "too slow":
                order = Order(name, steps, ("failed",), "run_timeout", run_s=1.0, followed=followed)
            case "canceled":
                after = rng.uniform(0, 15)
                order = Order(name, steps, ("canceled", "succeeded"), canceled_after=after, followed=followed)
            case _:
                order = Order(name, [LONG] if number % 6 == 0 else steps, followed=followed)
        made.append(order)
    return made


class Customers:
    """Threads that send `orders`, spread over `seconds`."""

    def __init__(self, url: str, key: str, files: Path, orders: Sequence[Order], seconds: float) -> None:
        self._url, self._key, self._files = url, key, files
        self._orders, self._pause_s = list(orders), seconds / max(len(orders), 1)
        self.sold: list[Sold] = []
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._send, name="customer", daemon=True)]
        self._followers: list[threading.Thread] = []

    def start(self) -> None:
        """Begins."""
        for thread in self._threads:
            thread.start()

    def busy(self) -> bool:
        """Whether orders are still being sent, or streams followed."""
        return any(thread.is_alive() for thread in (*self._threads, *self._followers))

    def insist(self) -> int:
        """Asks once more for jobs that have lost all their attempts, as one does; how many those were."""
        with self.client() as client:
            lost = [sold for sold in self.sold if self._is_lost(client, sold)]
            for sold in lost:
                client.jobs.retry(sold.job_id)
                if sold.order.followed:
                    self._start(self._follow, sold)
        return len(lost)

    def _is_lost(self, client: Client, sold: Sold) -> bool:
        job = client.jobs.get(sold.job_id)
        return job.error is not None and job.error.code in LOST and job.attempt >= ATTEMPTS

    def client(self) -> Client:
        """A client that does not give up."""
        return Client(self._url, self._key, retries=PATIENT)

    def _send(self) -> None:
        began = time.monotonic()
        try:
            with self.client() as client:
                model = client.models.upload(self._files / "model.pt2")
                calibration = client.datasets.upload(self._files / "calibration.npz")
                evaluation = client.datasets.upload(self._files / "evaluation.npz")
                for number, order in enumerate(self._orders):
                    time.sleep(max(0.0, began + number * self._pause_s - time.monotonic()))
                    request = JobRequest(
                        model_id=model.id,
                        calibration_dataset_id=calibration.id,
                        evaluation_dataset_id=evaluation.id,
                        training_dataset_id=calibration.id if LONG in order.steps else None,
                        recipe={"steps": list(order.steps)},
                        targets=["onnxruntime"],
                        limits=order.limits or None,
                        name=order.name,
                        max_attempts=ATTEMPTS,
                        timeouts={"run_s": order.run_s},
                    )
                    self._take(Sold(order, client.jobs.create(request).id))
        except Exception as error:  # noqa: BLE001 - whatever a customer meets is part of the verdict
            self.failures.append(f"sending: {error!r}")

    def _take(self, sold: Sold) -> None:
        self.sold.append(sold)
        for wanted, act in ((sold.order.followed, self._follow), (sold.order.canceled_after is not None, self._cancel)):
            if wanted:
                self._start(act, sold)

    def _start(self, act: Callable[[Sold], None], sold: Sold) -> None:
        thread = threading.Thread(target=act, args=(sold,), daemon=True)
        self._followers.append(thread)
        thread.start()

    def _follow(self, sold: Sold) -> None:
        try:
            with self.client() as client:
                last = sold.events[-1].id if sold.events else None
                sold.events.extend(client.jobs.events(sold.job_id, after=last))
        except Exception as error:  # noqa: BLE001
            self.failures.append(f"following {sold.job_id}: {error!r}")

    def _cancel(self, sold: Sold) -> None:
        time.sleep(sold.order.canceled_after or 0.0)
        try:
            with self.client() as client:
                client.jobs.cancel(sold.job_id)
        except Conflict:
            return  # it was over already
        except Exception as error:  # noqa: BLE001
            self.failures.append(f"canceling {sold.job_id}: {error!r}")
