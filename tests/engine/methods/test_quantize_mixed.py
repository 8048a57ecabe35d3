"""``quantize.mixed`` from the recipe step to the quantized form."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from app.recipes import TARGETS as GRIDS
from app.recipes import RecipeError, parse_recipe
from app.recipes.methods import QuantizeMixed, QuantizeWeights
from app.recipes.recipe import check_targets
from tests.support.quantizable import Notebook, build, compress, samples, sqnr_db
from worker.engine import checkpoint
from worker.engine.errors import InvalidDataset, Unsupported
from worker.engine.formats.lift import network_of
from worker.engine.methods import METHODS
from worker.engine.network import Network
from worker.engine.quantized.fake import fake_quantized
from worker.engine.quantized.observe import tensors
from worker.engine.state import Compressed, Context


def fidelity(network: Network, done: Compressed) -> float:
    inputs = tensors(samples(network, 64, seed=5).inputs, network, "cpu")
    with torch.no_grad():
        expected, got = network.module(*inputs)[0], fake_quantized(done.quantized["onnxruntime"])(*inputs)[0]
    return sqnr_db(expected, got)


def average(done: Compressed) -> float:
    weights = done.quantized["onnxruntime"].weights.values()
    count = sum(weight.values.numel() for weight in weights)
    return sum(weight.values.numel() * weight.bits for weight in weights) / count


class Uneven(nn.Module):
    """A small layer that everything passes through, and large ones in a branch that adds little to it."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.up, self.down = nn.Linear(16, 16), nn.Linear(16, 64), nn.Linear(64, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.main(x)
        return x + 0.02 * self.down(torch.relu(self.up(x)))


def test_it_beats_one_width_for_all_at_the_same_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = network_of(Uneven().eval(), (torch.randn(3, 16),))
    mixed = compress(network, QuantizeMixed(choices=(8, 4, 3, 2), average_bits=4, group_size=16), tmp_path)
    uniform = compress(network, QuantizeWeights(bits=4, algorithm="gptq", group_size=16), tmp_path)
    assert average(mixed) <= 4
    assert mixed.quantized["onnxruntime"].weights["main"].bits == 8
    assert fidelity(network, mixed) > fidelity(network, uniform) + 10


def test_the_report_says_what_each_layer_would_cost(tmp_path: Path) -> None:
    network = build("residual")
    done = compress(network, QuantizeMixed(average_bits=5), tmp_path)
    weights = done.quantized["onnxruntime"].weights
    assert {row["name"]: row["bits"] for row in done.sensitivity} == {key: w.bits for key, w in weights.items()}
    decibels = [row["output_sqnr_db"] for row in done.sensitivity]
    assert all(row["8"] > row["4"] for row in decibels)
    assert [row["4"] for row in decibels] == sorted(row["4"] for row in decibels)
    assert any("bits on average" in note for note in done.notes)
    checkpoint.save(done, [], tmp_path / "c.zip", network)
    assert checkpoint.load(tmp_path / "c.zip", network).compressed.sensitivity == done.sensitivity


def test_a_ratio_counts_scales_and_what_stays_in_float(tmp_path: Path) -> None:
    network = build("encoder")
    done = compress(network, QuantizeMixed(choices=(8, 4, 2), max_size_ratio=0.3, group_size=-1), tmp_path)
    state = network.module.state_dict()
    weights = done.quantized["onnxruntime"].weights
    rest = sum(value.numel() for value in state.values()) - sum(weight.values.numel() for weight in weights.values())
    stored = 32 * rest + sum(weight.stored_bits for weight in weights.values())
    ratio = stored / (32 * sum(value.numel() for value in state.values()))
    assert 0.25 < ratio <= 0.3


def test_a_ratio_out_of_reach_says_what_would_work(tmp_path: Path) -> None:
    with pytest.raises(Unsupported) as caught:
        compress(build("encoder"), QuantizeMixed(max_size_ratio=0.05), tmp_path)
    assert caught.value.code == "budget_too_small"
    assert "smaller choices" in caught.value.detail


@pytest.mark.parametrize(
    "parameters",
    [{"average_bits": 5, "max_size_ratio": 0.2}, {"average_bits": 3}, {"choices": []}, {"choices": [5]}],
)
def test_what_is_no_budget_is_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe({"steps": [{"method": "quantize.mixed", **parameters}]})
    assert {fault.code for fault in caught.value.faults} == {"invalid_parameter"}


def test_each_choice_must_be_possible_in_the_target() -> None:
    recipe = parse_recipe({"steps": [{"method": "quantize.mixed", "choices": [8, 3, 2]}]})
    faults = check_targets(recipe, ["openvino"])
    assert [fault.code for fault in faults] == ["target_unsupported"] * 2
    assert "choices 3 cannot go to openvino, which holds choices 8, 4" in faults[0].detail
    assert check_targets(recipe, ["torch", "onnxruntime"]) == []


def test_data_are_asked_for(tmp_path: Path) -> None:
    context = Context({"torch": GRIDS["torch"]}, Notebook(), tmp_path)
    with pytest.raises(InvalidDataset):
        METHODS[QuantizeMixed](Compressed(build("encoder")), QuantizeMixed(), context)
