"""``quantize.ternary`` and ``quantize.binary`` from the recipe step to the files, rounded and trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from app.recipes import METHODS as DECLARED
from app.recipes import TARGETS as GRIDS
from app.recipes.methods import LayerFilter, QuantizeBinary, QuantizeTernary, QuantizeWeights, SignStep
from tests.support import handwriting, looked_up
from tests.support.networks import ZOO, make
from tests.support.quantizable import Notebook, build, compress, samples
from worker.engine.errors import InvalidDataset, Unsupported
from worker.engine.formats.lift import network_of
from worker.engine.methods import METHODS
from worker.engine.network import Network
from worker.engine.quantized.fake import fake_quantized
from worker.engine.state import Compressed, Context


@pytest.fixture(scope="module")
def network() -> Network:
    return looked_up.network(1024)


@pytest.mark.parametrize("target", ["onnxruntime", "torch"])
@pytest.mark.parametrize(
    "step",
    [
        QuantizeTernary(),
        QuantizeTernary(scale="layer", first_last="quantize"),
        QuantizeBinary(first_last="quantize"),
        QuantizeBinary(scale="layer"),
    ],
    ids=lambda step: f"{step.method}-{step.scale}-{step.first_last}",
)
def test_files_and_checkpoints_hold_it(step: SignStep, target: str, network: Network, tmp_path: Path) -> None:
    done = compress(network, step, tmp_path, (target,))
    form = looked_up.check_file(done, target, network, tmp_path)
    ends = {"0", "5"}
    assert set(form.weights) == {"2", "4"} | (ends if step.first_last == "quantize" else set())
    assert any("first and the last layer are kept" in note for note in done.notes) == (step.first_last == "keep")
    for weight in form.weights.values():
        assert len(weight.dequantized().unique()) <= (3 if isinstance(step, QuantizeTernary) else 2) * (
            1 if step.scale == "layer" else len(weight.values)
        )


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("scale", ["channel", "layer"])
@pytest.mark.parametrize(("kind", "share"), [(QuantizeTernary, 0.5), (QuantizeBinary, 0.3)])
def test_training_wins_back_much_of_what_rounding_loses(
    kind: type[SignStep], share: float, scale: Any, norm: bool, tmp_path: Path
) -> None:
    network = network_of(handwriting.trained(norm, width=16), (torch.zeros(2, 1, 8, 8),))
    rounded = handwriting.run(network, kind(scale=scale), tmp_path)
    step = kind(scale=scale, epochs=8, learning_rate=5e-3, batch_size=32)
    trained = handwriting.run(network, step, tmp_path)
    before, lost, after = (
        handwriting.accuracy(module)
        for module in (network.module, *(fake_quantized(done.quantized["torch"]) for done in (rounded, trained)))
    )
    assert before - lost > 0.1
    assert after - lost > share * (before - lost)
    assert len(trained.curves["loss"]) == len(trained.curves["accuracy"]) == 8
    assert not rounded.curves
    # What goes on down the recipe is the network that was trained, not the float weights behind its rounding.
    assert handwriting.accuracy(trained.network.module) == after


@pytest.mark.parametrize("scale", ["channel", "layer"])
def test_an_interrupted_training_ends_with_the_same_numbers(scale: Any, tmp_path: Path) -> None:
    network = build("residual")
    step = QuantizeTernary(scale=scale, epochs=3, batch_size=32)
    data = samples(network, 64, seed=2)
    whole = handwriting.run(network, step, tmp_path, training=data)
    notebook = Notebook()
    partial = handwriting.interrupted(network, step, tmp_path, training=data)
    resumed = handwriting.run(network, step, tmp_path, training=data, resumed=partial, reporter=notebook)
    assert any("goes on after epoch 1" in line for line in notebook.lines)
    assert resumed.curves == whole.curves
    for path, weight in whole.quantized["torch"].weights.items():
        torch.testing.assert_close(
            resumed.quantized["torch"].weights[path].dequantized(), weight.dequantized(), rtol=0, atol=0
        )


def test_two_trainings_leave_one_curve(tmp_path: Path) -> None:
    network = build("residual")
    data = samples(network, 64, seed=2)
    context = Context(
        {"torch": GRIDS["torch"]}, Notebook(), tmp_path, training=data, calibration=data, task="classification"
    )
    filters = [LayerFilter(include=("one",)), LayerFilter(include=("two",))]
    done = Compressed(network)
    for epochs, layers in zip((1, 2), filters, strict=True):
        step = QuantizeTernary(epochs=epochs, layers=layers)
        done = METHODS[QuantizeTernary](done, step, context)
    assert len(done.curves["loss"]) == 3
    assert set(done.quantized["torch"].weights) == {"one", "two"}


def test_short_channels_stay_in_float(tmp_path: Path) -> None:
    network = network_of(
        nn.Sequential(nn.Conv1d(8, 64, 3), nn.Conv1d(64, 64, 3, groups=64), nn.Conv1d(64, 64, 3)).eval(),
        (torch.randn(2, 8, 12),),
    )
    done = compress(network, QuantizeTernary(first_last="quantize"), tmp_path)
    assert set(done.quantized["onnxruntime"].weights) == {"0", "2"}
    assert any(note.startswith("1 stays in float: its codebook would be larger") for note in done.notes)


def test_what_cannot_be_done_is_refused(network: Network, tmp_path: Path) -> None:
    with pytest.raises(Unsupported) as caught:
        compress(network, QuantizeBinary(layers=LayerFilter(include=("0", "5"))), tmp_path)
    assert caught.value.code == "no_layers"
    assert "first_last: quantize" in caught.value.detail
    recurrent = network_of(make("recurrent"), ZOO["recurrent"].inputs(3))
    with pytest.raises(Unsupported) as none:
        compress(recurrent, QuantizeBinary(layers=LayerFilter(include=("lstm*", "embedding*"))), tmp_path)
    assert "quantize.weights" in none.value.detail
    with pytest.raises(InvalidDataset) as missing:
        compress(network, QuantizeTernary(epochs=1), tmp_path)
    assert missing.value.code == "training_required"
    first = compress(network, QuantizeWeights(layers=LayerFilter(include=("2",))), tmp_path, ("torch",))
    context = Context(
        {"torch": GRIDS["torch"]}, Notebook(), tmp_path, training=samples(network, 16, seed=2), task="classification"
    )
    with pytest.raises(Unsupported) as twice:
        METHODS[QuantizeTernary](first, QuantizeTernary(epochs=1), context)
    assert twice.value.code == "invalid_order"


def test_they_need_training_samples_where_they_train() -> None:
    for name in ("quantize.ternary", "quantize.binary", "quantize.codebook"):
        method = DECLARED[name]
        trains = {"finetune": True} if name == "quantize.codebook" else {"epochs": 1}
        assert method.model_validate({"method": name}).needed == ()
        assert method.model_validate({"method": name, **trains}).needed == ("training",)
