"""Sizes as estimated, beside those of the files that the engine writes."""

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

from app.recipes import TARGETS as GRIDS
from app.recipes import ModelFacts, parse_recipe
from app.recipes.estimate import Question, Samples, estimate
from tests.engine.test_pipeline import Collector
from tests.support.digits import DigitsNet
from tests.support.networks import ZOO, make
from tests.support.pt2_files import save
from worker.engine import formats
from worker.engine.checks import check_model
from worker.engine.data.samples import Samples as Data
from worker.engine.methods import METHODS
from worker.engine.network import Network
from worker.engine.state import Compressed, Context
from worker.engine.targets import TARGETS
from worker.engine.targets.floats import Floats

RECIPES: dict[str, list[dict[str, Any]]] = {
    "static": [{"method": "quantize.static", "samples": 32}],
    "dynamic": [{"method": "quantize.dynamic"}],
    "float16": [{"method": "quantize.float"}],
    "four bits": [{"method": "quantize.weights", "bits": 4, "group_size": 32}],
    "three bits": [{"method": "quantize.weights", "bits": 3, "group_size": 32}],
    "codebooks": [{"method": "quantize.codebook"}],
    "zeros": [{"method": "prune.weights"}],
    "narrower": [{"method": "prune.channels", "scope": "layer", "ratio": 0.5}],
    "narrower, static": [
        {"method": "prune.channels", "scope": "layer", "max_macs_ratio": 0.4},
        {"method": "quantize.static", "samples": 32},
    ],
    "ranks": [{"method": "factorize.tucker", "rank_ratio": 0.4}],
}
NETS = {
    "digits": (lambda: _digits(), (torch.rand(2, 1, 8, 8),)),
    "resnet18": (lambda: make("resnet18"), ZOO["resnet18"].inputs(2)),
}


def _digits() -> torch.nn.Module:
    torch.manual_seed(0)
    net = DigitsNet()
    for _ in range(3):  # norms that have seen something: exporters leave biases of zeros out
        net(torch.rand(16, 1, 8, 8))
    return net.eval()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Network, ModelFacts, Floats]]:
    folder = tmp_path_factory.mktemp("models")
    found = {}
    for name, (build, inputs) in NETS.items():
        path = save(build(), inputs, folder / f"{name}.pt2")
        network = formats.read(path)
        found[name] = network, check_model(path), Floats(network, folder / name)
    return found


def exported(network: Network, floats: Floats, steps: list[dict[str, Any]], target: str, folder: Path) -> Path:
    spec = network.inputs[0]
    data = Data({spec.name: torch.rand(64, *spec.shape[1:]).numpy()})  # type: ignore[arg-type]
    context = Context(
        grids={target: GRIDS[target]}, reporter=Collector(), folder=folder, calibration=data, original=network
    )
    state = Compressed(network)
    for step in parse_recipe({"steps": steps}).steps:
        state = METHODS[type(step)](state, step, context)
    changed = floats if state.network is network else Floats(state.network, folder / "changed")
    base, path = TARGETS[target].export_float(changed), folder / f"artifact{TARGETS[target].suffix}"
    if target not in state.quantized:
        return base.path
    return TARGETS[target].export_quantized(state.quantized[target], base, path)


@pytest.mark.parametrize("recipe", RECIPES)
def test_sizes_for_onnx_runtime_are_right_within_five_percent(models: Any, recipe: str, tmp_path: Path) -> None:
    network, facts, floats = models["digits"]
    path = exported(network, floats, RECIPES[recipe], "onnxruntime", tmp_path)
    onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert size(facts, RECIPES[recipe], "onnxruntime") == pytest.approx(path.stat().st_size, rel=0.05)


@pytest.mark.parametrize("recipe", ["static", "four bits"])
def test_sizes_of_a_residual_network(models: Any, recipe: str, tmp_path: Path) -> None:
    network, facts, floats = models["resnet18"]
    path = exported(network, floats, RECIPES[recipe], "onnxruntime", tmp_path)
    assert size(facts, RECIPES[recipe], "onnxruntime") == pytest.approx(path.stat().st_size, rel=0.05)


@pytest.mark.parametrize("target", ["openvino", "torch"])
@pytest.mark.parametrize("recipe", ["static", "four bits"])
def test_sizes_for_other_targets(models: Any, recipe: str, target: str, tmp_path: Path) -> None:
    network, facts, floats = models["digits"]
    path = exported(network, floats, RECIPES[recipe], target, tmp_path)
    assert size(facts, RECIPES[recipe], target) == pytest.approx(path.stat().st_size, rel=0.05)


def test_an_onnx_file_tells_what_its_graph_takes(models: Any, tmp_path: Path) -> None:
    _, _, floats = models["digits"]
    source = TARGETS["onnxruntime"].export_float(floats).path
    network, facts = formats.read(source), check_model(source)
    steps = RECIPES["static"]
    path = exported(network, Floats(network, tmp_path), steps, "onnxruntime", tmp_path)
    found = size(facts, steps, "onnxruntime", source.stat().st_size)
    assert found == pytest.approx(path.stat().st_size, rel=0.05)


def size(facts: ModelFacts, steps: list[dict[str, Any]], target: str, file_bytes: int | None = None) -> int:
    question = Question(parse_recipe({"steps": steps}), [target], facts, Samples(64), file_bytes=file_bytes)
    return estimate(question).sizes[target]
