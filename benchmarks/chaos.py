"""Does the platform keep its word? Everything that can die is killed at random while customers send jobs.

``make chaos`` runs 200 small real jobs over 4 workers for ten minutes, with a real PostgreSQL and Valkey, while
workers, job processes, Valkey, PostgreSQL and the API are killed, frozen, emptied and started again; then everything
may come to rest, and each job is looked at: it ended in the right state, its artifact has its digest, its events are
numbered without gaps, its attempts never overlapped, and streams that were followed brought every event once.

``python benchmarks/chaos.py --jobs 200 --workers 4 --minutes 10 --seed 0`` exits with 1 where a fault was found.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from app.admin import make_first_key
from benchmarks.support.chaos.customers import Customers, orders
from benchmarks.support.chaos.deployment import deployment
from benchmarks.support.chaos.monkey import Monkey
from benchmarks.support.chaos.verdict import faults, states, unfinished
from tests.support.digits import train_digits

#: After the last blow some job ends within this time, in seconds, until all are over. The longest that nothing need end
#: is the pause before the last attempt of a job that every blow has met.
STUCK_S = 180.0


def main() -> int:
    """Runs it and prints the verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=4, help="workers for jobs; one more reads uploads")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="leave logs and data in this folder")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o711)
    try:
        return run(folder.resolve(), options.jobs, options.workers, options.minutes * 60, options.seed)
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def run(folder: Path, jobs: int, workers: int, seconds: float, seed: int) -> int:
    """The exit status."""
    files = _goods(folder / "files")
    with deployment(folder, workers) as made:
        make_first_key(made.settings, folder / "key")
        key = (folder / "key").read_text().strip()
        # The last orders come while there is still something to survive.
        customers = Customers(made.url, key, files, orders(jobs, seed), 0.8 * seconds)
        monkey = Monkey(made, seed)
        began = time.monotonic()
        customers.start()
        monkey.rage(seconds)
        raged = time.monotonic() - began
        rested = _come_to_rest(monkey, customers)
        insisted = customers.insist() if rested else 0
        rested = rested and _come_to_rest(monkey, customers)
        with customers.client() as client:
            found = [*customers.failures, *faults(made, customers.sold, client)]
        if not rested:
            left = unfinished(made.settings.database_url)
            found.append(f"{left} jobs are not over, and none ended for {STUCK_S:.0f} s")
        found += [f"{job}: two of its attempts ran at once" for job in sorted(monkey.doubles)]
        ended = states(customers.sold, made.settings.database_url)
    blows = ", ".join(f"{count} x {name}" for name, count in sorted(monkey.blows.items()))
    print(f"{len(customers.sold)} jobs: {', '.join(f'{count} {state}' for state, count in sorted(ended.items()))}")
    print(f"{sum(monkey.blows.values())} blows in {raged:.0f} s ({blows})")
    if insisted:
        print(f"{insisted} met a blow in each of their attempts, and were asked for once more")
    print(f"all over {time.monotonic() - began:.0f} s after the start")
    for fault in found:
        print(f"FAULT: {fault}")
    print("Nothing was lost and nothing ran twice." if not found else f"{len(found)} faults.")
    return 1 if found else 0


def _goods(folder: Path) -> Path:
    """What customers upload. The network is small: times are taken under a lock of the host, one job after the other,
    and those of a large one (a hundred runs and more in each of some thirty turns) would be most of the whole."""
    folder.mkdir(exist_ok=True)
    digits = train_digits(folder, epochs=2)
    for name, content in (
        ("model.pt2", digits.model),
        ("calibration.npz", digits.calibration),
        ("evaluation.npz", digits.evaluation),
    ):
        (folder / name).write_bytes(content)
    return folder


def _come_to_rest(monkey: Monkey, customers: Customers) -> bool:
    """Waits until every job is over and every customer is content; whether they came to that."""
    left, until = None, time.monotonic() + STUCK_S
    while time.monotonic() < until:
        monkey.rest(1.0)
        now = unfinished(monkey.deployment.settings.database_url)
        if now == 0 and not customers.busy():
            return True
        if now != left:
            left, until = now, time.monotonic() + STUCK_S
    return False


if __name__ == "__main__":
    sys.exit(main())
