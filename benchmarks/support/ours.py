"""One quantization by Modelpress, as `peer.py` does it: from reading the float file to the written quantized file."""

import json
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app.recipes import TARGETS as GRIDS
from app.recipes.methods import QuantizeStatic
from worker.engine import formats
from worker.engine.data.samples import Samples
from worker.engine.methods import METHODS
from worker.engine.state import Compressed, Context
from worker.engine.targets import TARGETS


class Silent:
    """A reporter that nobody listens to."""

    def progress(self, phase: str, fraction: float) -> None: ...
    def log(self, message: str, level: str = "info") -> None: ...
    def metric(self, name: str, value: Any) -> None: ...
    def checkpoint(self, label: str, file: Path) -> None: ...
    def measuring(self) -> AbstractContextManager[None]:
        return nullcontext()


def main() -> None:
    calibration, source, data, result = sys.argv[1], *map(Path, sys.argv[2:5])
    torch.set_num_threads(int(sys.argv[5]))
    images = np.load(data)["input"]
    step = QuantizeStatic.model_validate({"calibration": calibration, "samples": len(images)})
    stages = {}
    started = last = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal last
        now = time.perf_counter()
        stages[name], last = round(now - last, 3), now

    network = formats.read(source, "onnx")
    lap("read")
    context = Context(
        {"onnxruntime": GRIDS["onnxruntime"]}, Silent(), result.parent, calibration=Samples({"input": images})
    )
    compressed = METHODS[QuantizeStatic](Compressed(network), step, context)
    lap("quantize")
    target = TARGETS["onnxruntime"]
    exported = target.export_float(network, result.parent)
    target.export_quantized(network, compressed.quantized["onnxruntime"], exported, result)
    lap("write")
    print(json.dumps({"seconds": time.perf_counter() - started, "stages": stages}))


if __name__ == "__main__":
    main()
