"""``quantize.weights`` from the recipe step to the quantized form."""

from pathlib import Path

import pytest
import torch
from torch import nn

from app.recipes import TARGETS as GRIDS
from app.recipes import RecipeError, parse_recipe
from app.recipes.methods import LayerFilter, QuantizeStatic, QuantizeWeights
from tests.support.quantizable import Notebook, build, compress, samples, sqnr_db
from worker.engine import checkpoint, formats
from worker.engine.data.samples import Samples
from worker.engine.errors import InvalidDataset, Unsupported
from worker.engine.formats.lift import network_of
from worker.engine.methods import METHODS
from worker.engine.network import Network
from worker.engine.quantized.fake import fake_quantized
from worker.engine.quantized.observe import tensors
from worker.engine.state import Compressed, Context
from worker.engine.targets import TARGETS
from worker.engine.targets.floats import Floats

ALGORITHMS = ("rtn", "hqq", "awq", "gptq")


def fidelity(network: Network, done: Compressed, target: str = "onnxruntime") -> float:
    inputs = tensors(samples(network, 64, seed=5).inputs, network, "cpu")
    with torch.no_grad():
        expected, got = network.module(*inputs)[0], fake_quantized(done.quantized[target])(*inputs)[0]
    return sqnr_db(expected, got)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", ["residual", "encoder"])
def test_more_bits_are_more_faithful(algorithm: str, name: str, tmp_path: Path) -> None:
    network = build(name)
    found = [
        fidelity(network, compress(network, QuantizeWeights(bits=bits, algorithm=algorithm, group_size=16), tmp_path))
        for bits in (2, 4, 8)
    ]
    assert found[0] + 5 < found[1] < found[2] - 10
    assert found[2] > 35


def test_gptq_is_better_than_rounding(tmp_path: Path) -> None:
    network = build("residual")
    rtn, mine = (
        fidelity(network, compress(network, QuantizeWeights(bits=3, algorithm=name), tmp_path))
        for name in ("rtn", "gptq")
    )
    assert mine > rtn + 3


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_checkpoint_holds_all_of_it(algorithm: str, tmp_path: Path) -> None:
    network = build("encoder")
    step = QuantizeWeights(bits=3, algorithm=algorithm, group_size=16)
    done = compress(network, step, tmp_path, ("onnxruntime", "torch"))
    checkpoint.save(done, [], tmp_path / "c.zip", network)
    again = checkpoint.load(tmp_path / "c.zip", network).compressed
    for key, weight in done.quantized["torch"].weights.items():
        other = again.quantized["torch"].weights[key]
        torch.testing.assert_close(other.dequantized(), weight.dequantized(), rtol=0, atol=0)
        assert other.stored_bits == weight.stored_bits


@pytest.mark.parametrize("target", ["onnxruntime", "openvino", "torch"])
def test_files_are_as_small_as_the_bits_they_hold(target: str, tmp_path: Path) -> None:
    torch.manual_seed(0)

    module = nn.Sequential(nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 1024)).eval()
    network = network_of(module, (torch.randn(2, 1024),))
    done = compress(network, QuantizeWeights(bits=4), tmp_path, (target,))
    exported = TARGETS[target].export_float(Floats(network, tmp_path / "float"))
    path = TARGETS[target].export_quantized(done.quantized[target], exported, tmp_path / f"q{TARGETS[target].suffix}")
    counted = sum(weight.stored_bits for weight in done.quantized[target].weights.values()) / 8
    assert path.stat().st_size < 1.05 * counted + 50_000
    assert path.stat().st_size < exported.path.stat().st_size / 6.5


def test_two_steps_share_a_network(tmp_path: Path) -> None:
    network = build("encoder")
    first = compress(network, QuantizeWeights(bits=4, layers=LayerFilter(include=("up", "down"))), tmp_path)
    context = Context({"onnxruntime": GRIDS["onnxruntime"]}, Notebook(), tmp_path, calibration=samples(network))
    both = METHODS[QuantizeStatic](first, QuantizeStatic(layers=LayerFilter(exclude=("up", "down"))), context)
    weights = both.quantized["onnxruntime"].weights
    assert {key: weight.bits for key, weight in weights.items()} == {"up": 4, "down": 4, "qkv": 8, "out": 8}
    rows = {row["name"]: row["bits"] for row in both.layers}
    assert rows == {"up": 4, "down": 4, "qkv": 8, "out": 8}


@pytest.mark.parametrize("algorithm", ["gptq", "awq"])
def test_data_are_asked_for(algorithm: str, tmp_path: Path) -> None:
    network = build("encoder")
    context = Context({"torch": GRIDS["torch"]}, Notebook(), tmp_path)
    with pytest.raises(InvalidDataset) as caught:
        METHODS[QuantizeWeights](Compressed(network), QuantizeWeights(algorithm=algorithm), context)
    assert caught.value.code == "calibration_required"


def test_awq_does_not_move_under_an_earlier_step(tmp_path: Path) -> None:
    network = build("encoder")
    first = compress(network, QuantizeWeights(bits=4, layers=LayerFilter(include=("up",))), tmp_path)
    context = Context({"onnxruntime": GRIDS["onnxruntime"]}, Notebook(), tmp_path, calibration=samples(network))
    step = QuantizeWeights(algorithm="awq", layers=LayerFilter(exclude=("up",)))
    with pytest.raises(Unsupported) as caught:
        METHODS[QuantizeWeights](first, step, context)
    assert caught.value.code == "invalid_order"


@pytest.mark.parametrize("algorithm", ["gptq", "awq"])
def test_samples_that_overflow_are_named(algorithm: str, tmp_path: Path) -> None:
    network = build("encoder")
    data = samples(network)
    data.inputs[network.inputs[0].name][7, 2] = 3e38
    context = Context({"torch": GRIDS["torch"]}, Notebook(), tmp_path, calibration=data)
    with pytest.raises(InvalidDataset) as caught:
        METHODS[QuantizeWeights](Compressed(network), QuantizeWeights(algorithm=algorithm), context)
    assert caught.value.code == "not_finite"


def test_awq_computes_in_float_where_layers_run_in_bfloat16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = build("encoder")
    step = QuantizeWeights(bits=3, algorithm="awq", group_size=16)
    expected = fidelity(network, compress(network, step, tmp_path))
    monkeypatch.setattr("worker.engine.quantized.observe.half_precision", lambda device: torch.bfloat16)
    assert fidelity(network, compress(network, step, tmp_path)) == pytest.approx(expected, abs=1)


def test_awq_takes_a_convolution_without_a_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    program = torch.export.export(nn.Conv2d(4, 8, 3).eval(), (torch.randn(4, 10, 10),))
    torch.export.save(program, tmp_path / "m.pt2")
    network = formats.read(tmp_path / "m.pt2")
    data = Samples({network.inputs[0].name: torch.randn(12, 10, 10).numpy()})
    context = Context({"torch": GRIDS["torch"]}, Notebook(), tmp_path, calibration=data)
    done = METHODS[QuantizeWeights](Compressed(network), QuantizeWeights(algorithm="awq", bits=4), context)
    assert done.layers[0]["bits"] == 4


def test_a_layer_is_quantized_once(tmp_path: Path) -> None:
    network = build("encoder")
    first = compress(network, QuantizeStatic(layers=LayerFilter(include=("up", "d*"))), tmp_path)
    context = Context({"onnxruntime": GRIDS["onnxruntime"]}, Notebook(), tmp_path, calibration=samples(network))
    with pytest.raises(Unsupported) as caught:
        METHODS[QuantizeWeights](first, QuantizeWeights(layers=LayerFilter(include=("down",))), context)
    assert caught.value.code == "invalid_order"
    assert "down" in caught.value.detail


@pytest.mark.parametrize("method", ["quantize.weights", "quantize.mixed"])
def test_robust_zero_points_need_zero_points(method: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe({"steps": [{"method": method, "algorithm": "hqq", "symmetric": True}]})
    assert "take rtn" in caught.value.faults[0].detail
