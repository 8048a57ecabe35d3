"""One quantization by Modelpress, as `peer.py` does it: from reading the float file to the written artifact.

``python -m benchmarks.support.ours '{"step": {...}, "target": ..., "model": ..., "calibration": ..., "result": ...}'``
prints what it took as JSON, or ``{"error": ...}`` where the recipe is refused.
"""

import json
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from app.recipes import TARGETS as GRIDS
from app.recipes import RecipeError, Step, parse_recipe
from app.recipes.recipe import check_targets
from benchmarks.support.spending import order, spending
from worker.engine import formats
from worker.engine.data.samples import Samples
from worker.engine.errors import Unsupported, UserError
from worker.engine.measure.machine import saturates
from worker.engine.methods import METHODS
from worker.engine.network import Network
from worker.engine.quantized.form import Quantization
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


def arrays(path: str | None) -> tuple[Any, Any] | None:
    """Inputs and labels of an ``.npz``, or the inputs of an ``.npy`` as they lie on the disk."""
    if path is None:
        return None
    data = np.load(path, mmap_mode="r")
    return (data, None) if isinstance(data, np.ndarray) else (data["input"], data.get("label"))


def samples(data: tuple[Any, Any] | None, network: Network) -> Samples | None:
    """The arrays, named after the network's input."""
    return None if data is None else Samples({network.inputs[0].name: data[0]}, data[1])


def parsed(job: dict[str, Any]) -> Step:
    """The step that is asked for.

    Raises:
        RecipeError: a recipe that the service would refuse.
        Unsupported: a method that is declared and not there.
    """
    recipe = parse_recipe({"steps": [job["step"]]})
    faults = check_targets(recipe, [job["target"]])
    if faults:
        raise RecipeError(faults)
    if type(recipe.steps[0]) not in METHODS:
        raise Unsupported("unknown_method", f"the engine has no {recipe.steps[0].method}")
    return recipe.steps[0]


def run(job: dict[str, Any], step: Step) -> dict[str, Any]:
    """Read, quantize, write; what that took."""
    result, name = Path(job["result"]), job["target"]
    calibration, training = (arrays(job.get(role)) for role in ("calibration", "training"))
    stages: dict[str, float] = {}
    walls: dict[str, float] = {}
    last, wall = time.process_time(), time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal last, wall
        now, clock = time.process_time(), time.perf_counter()
        stages[stage], last = round(now - last, 3), now
        walls[stage], wall = clock - wall, clock

    with spending() as report:
        network = formats.read(Path(job["model"]))
        lap("read")
        context = Context(
            {name: GRIDS[name]},
            Silent(),
            result.parent,
            calibration=samples(calibration, network),
            training=samples(training, network),
            threads=job["threads"],
            task="classification",
            saturating=saturates(),
        )
        compressed = METHODS[type(step)](Compressed(network), step, context)
        lap("quantize")
        target = TARGETS[name]
        exported = target.export_float(Floats(compressed.network, result.parent / f"{result.stem}-float"))
        target.export_quantized(compressed.quantized[name], exported, result)
        lap("write")
    form = compressed.quantized[name]
    counted = {"counted": counted_bytes(form), "quantize": walls["quantize"]}
    return {**report, **counted, "cpu_stages": stages, "notes": compressed.notes, "curves": compressed.curves}


def counted_bytes(form: Quantization) -> float:
    """What the quantized weights take, with scales and centroids, and all other parameters in float32."""
    stored = form.weights.values()
    floats = form.network.parameters - sum(weight.shape.numel() for weight in stored)
    return sum(weight.stored_bits for weight in stored) / 8 + 4 * floats


def main() -> None:
    job = order()
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    warm_up(Path(job["result"]).parent)
    try:
        report = run(job, parsed(job))
    except RecipeError as error:
        report = {"error": f"refused: {error.faults[0].detail}"}
    except UserError as error:
        report = {"error": f"refused: {error.detail}"}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
