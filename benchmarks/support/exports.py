"""Processor time of `torch.onnx.export`: ``python -m benchmarks.support.exports kept|anew NETWORK``.

`kept`: with the table of translations that jobs keep; `anew`: as PyTorch makes it in every call.
"""

import contextlib
import json
import statistics
import sys
import time

import torch

from tests.support.networks import ZOO, make
from worker.engine.targets.quiet import quiet
from worker.engine.targets.translations import table_kept

LATER = 5


def main() -> None:
    """Prints the seconds of the first export in this process and the median of later ones."""
    way, name = sys.argv[1:]
    network, inputs = make(name), ZOO[name].inputs(2)
    torch.export.export(network, inputs)  # what every job has done before
    with quiet(), table_kept() if way == "kept" else contextlib.nullcontext():
        first, *later = (_seconds(network, inputs) for _ in range(1 + LATER))
    sys.stdout.write(json.dumps({"first": first, "later": statistics.median(later)}))


def _seconds(network: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> float:
    started = time.process_time()
    torch.onnx.export(network, inputs, dynamo=True, verbose=False)
    return time.process_time() - started


if __name__ == "__main__":
    main()
