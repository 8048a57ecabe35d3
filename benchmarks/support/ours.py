"""One quantization by Modelpress, as `peer.py` does it: from reading the float file to the written quantized file."""

import json
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from app.recipes import TARGETS as GRIDS
from app.recipes.methods import QuantizeStatic
from worker.engine import formats
from worker.engine.data.samples import Samples
from worker.engine.methods import METHODS
from worker.engine.state import Compressed, Context
from worker.engine.targets import TARGETS
from worker.engine.targets.floats import Floats


class Silent:
    """A reporter that nobody listens to."""

    def progress(self, phase: str, fraction: float) -> None: ...
    def log(self, message: str, level: str = "info") -> None: ...
    def metric(self, name: str, value: Any) -> None: ...
    def checkpoint(self, label: str, file: Path) -> None: ...
    def measuring(self) -> AbstractContextManager[None]:
        return nullcontext()


def warm_up(folder: Path) -> None:
    """Read a small network: PyTorch imports half of itself when it is first used, and imports do not count."""
    weight = numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, 4, 4]) for name in ("x", "y")]
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    path = folder / "warm-up.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))
    formats.read(path, "onnx")


def main() -> None:
    calibration, source, data, result = sys.argv[1], *map(Path, sys.argv[2:5])
    torch.set_num_threads(int(sys.argv[5]))
    images = np.load(data)["input"]
    step = QuantizeStatic.model_validate({"calibration": calibration, "samples": len(images)})
    warm_up(result.parent)
    stages = {}
    started, last = time.perf_counter(), time.process_time()
    spent = last

    def lap(name: str) -> None:
        nonlocal last
        now = time.process_time()
        stages[name], last = round(now - last, 3), now

    network = formats.read(source, "onnx")
    lap("read")
    context = Context(
        {"onnxruntime": GRIDS["onnxruntime"]}, Silent(), result.parent, calibration=Samples({"input": images})
    )
    compressed = METHODS[QuantizeStatic](Compressed(network), step, context)
    lap("quantize")
    target = TARGETS["onnxruntime"]
    exported = target.export_float(Floats(network, result.parent))
    target.export_quantized(compressed.quantized["onnxruntime"], exported, result)
    lap("write")
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "cpu": time.process_time() - spent, "cpu_stages": stages}))


if __name__ == "__main__":
    main()
