"""Counts the operator cases of the onnx package that the importer passes, and prints the counts for docs/formats.md.

``python benchmarks/conformance.py`` takes about a minute. ``--refused`` lists each refusal, ``--export`` also puts
every network that is right through `torch.export` (several minutes), ``--only NAME`` runs the cases of one operator.
Cases that are wrong or crash are always listed, and make the program fail.
"""

import argparse
import logging
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.conformance import CRASHED, OUTCOMES, OUTSIDE, REJECTED, WRONG, Result, cases, run_all, sentence
from worker.engine.formats.lift import quiet_export


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--refused", action="store_true", help="list the cases that are refused, with the reasons")
    parser.add_argument("--export", action="store_true", help="also export every network again")
    parser.add_argument("--only", default="", metavar="OPERATOR", help="only cases with this operator")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    found = [c for c in cases() if not options.only or any(n.op_type == options.only for n in c.model.graph.node)]
    with tempfile.TemporaryDirectory() as folder:
        results = list(run_all(found, Path(folder), exports_again if options.export else None))
    listed = (WRONG, CRASHED, REJECTED) if options.refused else (WRONG, CRASHED)
    for result in sorted(results, key=lambda result: (result.outcome, result.operators)):
        if {result.shipped, result.fixed} & set(listed) and (result.outcome in listed):
            print(f"{result.outcome:9} {result.name} ({', '.join(result.operators)}): {result.why[:400]}")
    print_table(results)
    return int(any(result.outcome in (WRONG, CRASHED) for result in results))


def exports_again(network: Any, inputs: list[torch.Tensor]) -> None:
    quiet_export(network.module, tuple(inputs), None)


def print_table(results: list[Result]) -> None:
    inside = [result for result in results if result.outcome != OUTSIDE]
    print(f"\n| operators in the table | {' | '.join(OUTCOMES)} | share |\n|---|{'---|' * 5}")
    for label, pick in (
        ("as shipped", lambda r: r.shipped),
        ("with constants", lambda r: r.fixed),
        ("either way", lambda r: r.outcome),
    ):
        counts = Counter(pick(result) for result in inside)
        share = counts["passed"] / max(len(inside), 1)
        print(f"| {label} | {' | '.join(str(counts[outcome]) for outcome in OUTCOMES)} | {share:.1%} |")
    outside = [result for result in results if result.outcome == OUTSIDE]
    missing = Counter(name for result in outside for name in result.missing)
    print(f"\n{len(outside)} of {len(results)} cases use operators that are not in the table:")
    print(", ".join(f"{name} {number}" for name, number in sorted(missing.items())))
    if inside:
        print(f"\n{sentence(results)}")


if __name__ == "__main__":
    sys.exit(main())
