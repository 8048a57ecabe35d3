"""Quantization side by side with its peers: ``python benchmarks/quantization.py [--stage A,B] [--network NAME]``.

Every contestant starts from the same float network and the same data, in a process of its own, all of them in turn;
the fastest round of each counts, on the clock and on the CPU (the latter means something on a busy machine too). Files
are judged in their runtimes on held-out data. Peers (`environments.PEERS`) live in environments of their own.
Everything is kept under the cache folder: a second start goes on where the first was stopped, and prints at once what
is there.
"""

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.support import contest, judge, low_bits, networks, stages, table  # noqa: E402

TITLES = {**stages.TITLES, **low_bits.TITLES}


def selected(options: argparse.Namespace) -> list[contest.Heat]:
    """The heats that the command line asks for."""
    wanted = options.stage.upper().split(",")
    unknown = set(wanted) - set(TITLES)
    if unknown:
        raise SystemExit(f"no stage {', '.join(sorted(unknown))}; there are {', '.join(TITLES)}")
    memory = networks.memory_data(options.cache, (stages.FEW, stages.SOME, stages.MANY))
    heats = [*stages.heats(memory), *low_bits.heats()]
    return [heat for heat in heats if heat.stage in wanted and options.network in (None, heat.network)]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--stage", default=",".join(TITLES), help="letters, such as A,C (all)")
    parser.add_argument("--network", choices=networks.NAMES, help="one network alone")
    parser.add_argument("--rounds", type=int, default=3, help="times that every contestant quantizes, at most (3)")
    parser.add_argument("--fresh", action="store_true", help="forget the results of earlier runs")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench", help="where everything is kept")
    options = parser.parse_args()
    options.cache = options.cache.resolve()
    tables = []
    for heat in selected(options):
        print(f"{heat.title} ...", flush=True)
        subject = networks.subject(heat.network, options.cache, judge.THREADS)
        course = contest.Course(heat, subject, options.cache, options.fresh)
        started = time.monotonic()
        contest.run(course, options.rounds)
        contest.score(course)
        course.spent(time.monotonic() - started)
        tables.append(table.render(course))
        print(tables[-1], flush=True)
    print("\n".join(["", "# All", *tables]))


if __name__ == "__main__":
    main()
