"""Does the platform keep its word? Everything that can die is killed at random while customers send jobs.

``make chaos`` runs 200 small real jobs over 4 workers for ten minutes, with a real PostgreSQL and Valkey, while
workers, job processes, Valkey, PostgreSQL and the API are killed, frozen, emptied and started again; then everything
may come to rest, and each job is looked at: it ended in the right state, its artifact has its digest, its events are
numbered without gaps, its attempts never overlapped, and streams that were followed brought every event once.

``python benchmarks/chaos.py --jobs 200 --workers 4 --minutes 10 --seed 0`` exits with 1 where a fault was found.
"""

import argparse
import shutil
import subprocess
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

#: How long everything may take to come to rest, per job, in seconds.
REST_S = 30.0


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
    files = folder / "files"
    files.mkdir(exist_ok=True)
    subprocess.run([sys.executable, str(Path(__file__).with_name("digits.py")), str(files)], check=True)
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
        rested = _come_to_rest(monkey, customers, jobs)
        with customers.client() as client:
            found = [*customers.failures, *faults(made, customers.sold, client)]
        if not rested:
            found.append(
                f"{unfinished(made.settings.database_url)} jobs were not over {REST_S * jobs:.0f} s after the last blow"
            )
        found += [f"{job}: two of its processes ran at once" for job in sorted(monkey.doubles)]
        ended = states(customers.sold, made.settings.database_url)
    blows = ", ".join(f"{count} x {name}" for name, count in sorted(monkey.blows.items()))
    print(f"{len(customers.sold)} jobs: {', '.join(f'{count} {state}' for state, count in sorted(ended.items()))}")
    print(f"{sum(monkey.blows.values())} blows in {raged:.0f} s ({blows})")
    print(f"all over {time.monotonic() - began:.0f} s after the start")
    for fault in found:
        print(f"FAULT: {fault}")
    print("Nothing was lost and nothing ran twice." if not found else f"{len(found)} faults.")
    return 1 if found else 0


def _come_to_rest(monkey: Monkey, customers: Customers, jobs: int) -> bool:
    """Waits until every job is over and every customer is content."""
    until = time.monotonic() + REST_S * jobs
    while time.monotonic() < until:
        monkey.rest(1.0)
        if not customers.busy() and unfinished(monkey.deployment.settings.database_url) == 0:
            return True
    return False


if __name__ == "__main__":
    sys.exit(main())
