"""``prune.channels`` from the recipe step to the files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from app.recipes import RecipeError, parse_recipe
from app.recipes.methods import LayerFilter, PruneChannels
from tests.support import handwriting, onnx_models
from tests.support.channels import built
from tests.support.quantizable import Notebook, build, samples
from worker.engine import checkpoint
from worker.engine.data.samples import Samples
from worker.engine.errors import InvalidDataset, Unsupported
from worker.engine.formats.lift import network_of
from worker.engine.measure.macs import count_macs
from worker.engine.methods import METHODS
from worker.engine.network import Network
from worker.engine.state import Compressed, Context, Partial
from worker.engine.structure import analyse
from worker.engine.targets.onnx_export import export_onnx

CRITERIA = ("magnitude", "taylor", "activation")


def prune(network: Network, folder: Path, data: Samples | None = None, **parameters: Any) -> Compressed:
    context = Context({}, Notebook(), folder, calibration=data, training=data, task="classification")
    return METHODS[PruneChannels](Compressed(network), PruneChannels(**parameters), context)


def macs(network: Network) -> int:
    return sum(count_macs(network).values())


@pytest.fixture(scope="module")
def trained() -> Network:
    return network_of(handwriting.trained(True, width=32), (torch.zeros(2, 1, 8, 8),))


def test_rounding_in_an_iteration_is_made_good_in_the_next(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)).eval()
    network = network_of(module, (torch.zeros(2, 8),))
    for iterations in (1, 8, 20):
        step = PruneChannels(ratio=0.5, round_to=8, iterations=iterations, scope="layer")
        done = METHODS[PruneChannels](Compressed(network), step, Context({}, Notebook(), tmp_path)).network
        assert [done.module.get_submodule(path).out_features for path in ("0", "2")] == [32, 32]


@pytest.mark.parametrize(("round_to", "told"), [(1, True), (8, False)])
def test_a_pattern_that_is_lost_is_told(round_to: int, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    with torch.no_grad():
        module[0].weight[:, ::2] = 0
        module[2].weight[:, [1, 3, 4, 5, 8, 9, 14, 15]] = 0
    before = Compressed(network_of(module, (torch.randn(2, 8),)), pruned=("0.weight", "2.weight"))
    # Rounded to eight, nothing goes of sixteen: the pattern stays.
    step = PruneChannels(ratio=0.2, round_to=round_to, layers=LayerFilter(include=("0",)))
    if not told:
        with pytest.raises(Unsupported, match="nothing is removed"):
            METHODS[PruneChannels](before, step, Context({}, Notebook(), tmp_path))
        return
    done = METHODS[PruneChannels](before, step, Context({}, Notebook(), tmp_path))
    assert [note for note in done.notes if "2:4" in note] == [
        "2: no longer two of every four are zero (2:4), because inputs went: let the pattern come last"
    ]


@pytest.mark.parametrize("criterion", CRITERIA)
def test_channels_that_do_nothing_go_first(criterion: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    idle = {0: [1, 2, 5, 7, 11, 12, 20, 23], 2: [0, 3, 4, 9, 10, 11, 14, 15]}
    with torch.no_grad():
        for layer, rows in idle.items():
            for parameter in module[layer].parameters():
                parameter[rows] *= 1e-3
            module[layer + 2].weight[:, rows] *= 1e-3
    network = network_of(module, (torch.randn(2, 6),))
    done = prune(network, tmp_path, samples(network), criterion=criterion, ratio=16 / 40)
    assert [done.network.module.get_submodule(str(layer)).out_features for layer in (0, 2)] == [16, 8]
    inputs = torch.randn(5, 6)
    torch.testing.assert_close(done.network.module(inputs)[0], module(inputs), atol=2e-3, rtol=0)


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_the_share_is_met(scope: str, ratio: float, tmp_path: Path) -> None:
    network = built("resnet18")
    total = sum(family.width for family in analyse(network).families)
    done = prune(network, tmp_path, ratio=ratio, scope=scope, round_to=1)
    left = sum(family.width for family in analyse(done.network).families)
    assert left == pytest.approx((1 - ratio) * total, abs=0.02 * total)
    if scope == "layer":
        widths = [family.width / 8 for family in analyse(done.network).families]
        assert widths[:3] == pytest.approx([1 - ratio] * 3, abs=0.13)


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet", "vit"])
def test_the_budget_is_never_exceeded(name: str, iterations: int, scope: str, tmp_path: Path) -> None:
    network = built(name)
    done = prune(network, tmp_path, max_macs_ratio=0.55, scope=scope, iterations=iterations, round_to=1)
    assert 0.45 * macs(network) < macs(done.network) <= 0.55 * macs(network)


def test_widths_are_multiples(tmp_path: Path) -> None:
    done = prune(built("resnet18"), tmp_path, ratio=0.4, round_to=4)
    widths = [m.out_channels for m in done.network.module.modules() if isinstance(m, nn.Conv2d)]
    assert all(width % 4 == 0 for width in widths)
    assert len(set(widths)) > 4


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_trained_network_loses_little_and_training_wins_it_back(
    criterion: str, trained: Network, tmp_path: Path
) -> None:
    data = handwriting.training(trained)
    before = handwriting.accuracy(trained.module)
    cut = prune(trained, tmp_path, data, criterion=criterion, max_macs_ratio=0.5, round_to=4, samples=64)
    assert macs(cut.network) <= 0.5 * macs(trained)
    healed = prune(
        trained, tmp_path, data, criterion=criterion, max_macs_ratio=0.5, round_to=4, samples=64, epochs=3,
        learning_rate=5e-3, iterations=2,
    )  # fmt: skip
    assert handwriting.accuracy(healed.network.module) > max(before - 0.03, handwriting.accuracy(cut.network.module))
    assert len(healed.curves["loss"]) == 6
    assert not healed.network.module.training
    assert any(isinstance(part, nn.BatchNorm2d) for part in healed.network.module.modules())


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_an_interrupted_one_ends_with_the_same_numbers(epochs: int, trained: Network, tmp_path: Path) -> None:
    """Also behind the first of several iterations, and in their middle."""
    step = PruneChannels(max_macs_ratio=0.5, round_to=4, iterations=2, epochs=2, learning_rate=5e-3)
    undisturbed = handwriting.run(trained, step, tmp_path)
    partial = handwriting.interrupted(trained, step, tmp_path, epochs)
    notebook = Notebook()
    resumed = handwriting.run(trained, step, tmp_path, resumed=partial, reporter=notebook)
    assert f"Training goes on after epoch {epochs % 2 or 2} of 2." in notebook.lines
    assert resumed.curves == undisturbed.curves
    assert resumed.notes == undisturbed.notes
    handwriting.same_numbers(resumed.network, undisturbed.network)


@pytest.mark.parametrize("removed", [[], [[-1]], [[1 << 40]], [[0], [0], [0]], "all"])
def test_what_was_kept_is_not_trusted(removed: Any, trained: Network, tmp_path: Path) -> None:
    step = PruneChannels(max_macs_ratio=0.5, round_to=4, iterations=2, epochs=1)
    partial = handwriting.interrupted(trained, step, tmp_path)
    removed = [list(range(analyse(trained).units))] if removed == "all" else removed
    notebook = Notebook()
    other = Partial({**partial.state, "removed": removed}, partial.tensors)
    done = handwriting.run(trained, step, tmp_path, resumed=other, reporter=notebook)
    assert any(line.startswith("The step starts over") for line in notebook.lines)
    assert macs(done.network) <= 0.5 * macs(trained)


def test_what_comes_out_is_stored_and_exported(trained: Network, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in trained.module.state_dict().items()}
    done = prune(trained, tmp_path, round_to=1)
    for name, value in trained.module.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    checkpoint.save(done, [], tmp_path / "c.zip", trained)
    again = checkpoint.load(tmp_path / "c.zip", trained).compressed
    images = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        expected = done.network.module(images)[0]
        torch.testing.assert_close(again.network.module(images)[0], expected)
    exported = export_onnx(done.network, tmp_path)
    assert exported.path.stat().st_size < 0.6 * export_onnx(trained, tmp_path / "whole").path.stat().st_size
    np.testing.assert_allclose(onnx_models.runtime(exported.path, images.numpy())[0], expected.numpy(), atol=1e-4)


def test_notes_say_what_went_and_what_stays(tmp_path: Path) -> None:
    network = built("lstm")
    done = prune(network, tmp_path, round_to=4)
    assert f"parameters {network.parameters} -> {done.network.parameters}" in done.notes[0]
    assert done.notes[0].startswith("8 channels are removed (magnitude, global)")
    assert any(note.startswith("lstm: ") and "hidden states" in note for note in done.notes)
    assert any(note.startswith("head: ") and "results" in note for note in done.notes)


def test_layers_that_are_left_out_keep_their_width(tmp_path: Path) -> None:
    layers = LayerFilter(exclude=("layer1.*", "fc"))
    done = prune(built("resnet18"), tmp_path, layers=layers, round_to=1)
    module = done.network.module
    assert {module.get_submodule(f"layer1.{i}.conv{j}").out_channels for i in (0, 1) for j in (1, 2)} == {8}
    assert module.get_submodule("conv1").out_channels == 8
    assert module.get_submodule("layer4.0.conv1").out_channels < 64
    assert any("left out by layers" in note and "layer1.0.conv1" in note for note in done.notes)


@pytest.mark.parametrize(
    ("parameters", "code", "words"),
    [
        ({"layers": LayerFilter(include=("layer9.*",))}, "unknown_layer", "layer"),
        ({"layers": LayerFilter(include=("fc",))}, "no_layers", "results"),
        ({"ratio": 0.001, "round_to": 256}, "no_layers", "round_to 256"),
        ({"max_macs_ratio": 0.001}, "budget_too_small", "lower round_to"),
    ],
)
def test_what_cannot_be_done_is_told(parameters: dict[str, Any], code: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(Unsupported) as caught:
        prune(built("resnet18"), tmp_path, **parameters)
    assert caught.value.code == code
    assert words in caught.value.detail


@pytest.mark.parametrize("criterion", ["taylor", "activation"])
def test_data_are_asked_for(criterion: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset) as caught:
        prune(build("residual"), tmp_path, criterion=criterion)
    assert caught.value.code == "calibration_required"
    assert PruneChannels(criterion=criterion, epochs=1).needed == ("calibration", "training")


@pytest.mark.parametrize("criterion", ["taylor", "activation"])
def test_samples_that_overflow_are_named(criterion: str, tmp_path: Path) -> None:
    network = build("residual")
    data = samples(network)
    data.inputs[network.inputs[0].name][3] = 3e38
    with pytest.raises(InvalidDataset) as caught:
        prune(network, tmp_path, data, criterion=criterion)
    assert caught.value.code == "not_finite"


def test_one_goal() -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe({"steps": [{"method": "prune.channels", "ratio": 0.5, "max_macs_ratio": 0.5}]})
    assert "not both" in caught.value.faults[0].detail
    with pytest.raises(RecipeError):
        parse_recipe({"steps": [{"method": "quantize.dynamic"}, {"method": "prune.channels"}]})
