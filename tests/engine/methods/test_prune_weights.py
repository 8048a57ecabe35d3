"""``prune.weights`` from the recipe step to the files, and what later steps make of its zeros."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from onnxruntime import InferenceSession
from torch import nn

from app.recipes import TARGETS as GRIDS
from app.recipes.methods import (
    Finetune,
    LayerFilter,
    PruneWeights,
    QuantizeAwareTraining,
    QuantizeStatic,
    QuantizeWeights,
)
from tests.support import everything, handwriting
from tests.support.architectures import ARCHITECTURES, export
from tests.support.networks import ZOO, make
from tests.support.quantizable import Notebook, build, compress, samples, sqnr_db
from worker.engine import checkpoint, formats
from worker.engine.errors import InvalidDataset, Unsupported
from worker.engine.formats.lift import network_of
from worker.engine.methods import METHODS
from worker.engine.network import Network
from worker.engine.quantized.fake import fake_quantized
from worker.engine.sparse.patterns import follows_fours
from worker.engine.state import Compressed, Context
from worker.engine.targets import TARGETS
from worker.engine.targets.floats import Floats

CRITERIA = ("magnitude", "sensitivity", "wanda", "sparsegpt")


def sparsity(done: Compressed) -> float:
    weights = [done.network.module.get_parameter(name) for name in done.pruned]
    return 1 - sum(int(w.count_nonzero()) for w in weights) / sum(w.numel() for w in weights)


@pytest.fixture(scope="module")
def trained() -> Network:
    return network_of(handwriting.trained(True, width=32), (torch.zeros(2, 1, 8, 8),))


@pytest.mark.parametrize(
    ("criterion", "share"), [("magnitude", 0.5), ("sensitivity", 0.4), ("wanda", 0.3), ("sparsegpt", 0.4)]
)
def test_much_of_a_trained_network_can_go(criterion: str, share: float, trained: Network, tmp_path: Path) -> None:
    step = PruneWeights(sparsity=share, criterion=criterion)
    done = handwriting.run(trained, step, tmp_path, calibration=handwriting.training(trained))
    assert sparsity(done) == pytest.approx(share, abs=0.001)
    assert handwriting.accuracy(done.network.module) > handwriting.accuracy(trained.module) - 0.06


def test_the_given_network_stays_as_it_is(trained: Network, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in trained.module.state_dict().items()}
    for criterion in CRITERIA:
        step = PruneWeights(criterion=criterion)
        handwriting.run(trained, step, tmp_path, calibration=handwriting.training(trained).take(np.arange(32)))
    assert all(torch.equal(value, before[name]) for name, value in trained.module.state_dict().items())


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("name", ["residual", "mobile", "encoder", "attention"])
def test_two_of_every_four(name: str, criterion: str, tmp_path: Path) -> None:
    done = compress(build(name), PruneWeights(criterion=criterion, pattern="2:4"), tmp_path)
    for key in done.pruned:
        assert follows_fours(done.network.module.get_parameter(key).detach())
    assert sparsity(done) == 0.5
    left = {"residual": {"stem.weight"}, "mobile": {"depthwise.weight", "excite.weight"}}.get(name, set())
    told = {note.split(" is not pruned: ")[0] for note in done.notes if " is not pruned: " in note}
    assert told == left


@pytest.mark.parametrize("name", sorted(ARCHITECTURES.keys() & {"vit", "lstm", "gru", "shufflenet", "unet", "video"}))
@pytest.mark.parametrize("criterion", CRITERIA)
def test_networks_as_users_have_them(name: str, criterion: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    export(ARCHITECTURES[name], "pt2", tmp_path / "m.pt2")
    network = formats.read(tmp_path / "m.pt2")
    drawn = ARCHITECTURES[name].draw(12, seed=3)
    data = everything.Samples({spec.name: drawn[spec.name].numpy() for spec in network.inputs})
    context = Context({"torch": GRIDS["torch"]}, Notebook(), tmp_path, calibration=data)
    done = METHODS[PruneWeights](Compressed(network), PruneWeights(criterion=criterion), context)
    assert sparsity(done) == pytest.approx(0.5, abs=0.01)
    with torch.no_grad():
        found = done.network.module(*(drawn[spec.name] for spec in network.inputs))
    assert all(bool(torch.isfinite(value).all()) for value in found)
    assert any("each gives its share" in note for note in done.notes) == (criterion in ("wanda", "sparsegpt"))
    blind = [note for note in done.notes if "pruned by magnitude" in note]
    assert bool(blind) == (criterion in ("wanda", "sparsegpt") and name in ("lstm", "gru", "unet", "video"))


def test_it_says_what_it_did_and_what_it_is_good_for(tmp_path: Path) -> None:
    network = network_of(make("recurrent"), ZOO["recurrent"].inputs(2))
    done = METHODS[PruneWeights](
        Compressed(network, notes=["earlier"]), PruneWeights(), Context({}, Notebook(), tmp_path)
    )
    assert done.notes[0] == "earlier"
    assert done.notes[1].startswith("50.0 % of the ")
    assert "neither smaller nor faster" in done.notes[2]
    assert "decoder.weight is not pruned: it is shared with embedding" in done.notes
    rows = {row["name"]: row for row in done.layers}
    assert rows.keys() == {name.removesuffix(".weight") for name in done.pruned}
    zeros = sum(row["share"] * row["sparsity"] for row in rows.values())
    assert zeros == pytest.approx(0.5, abs=0.001)
    assert all(row["sqnr_db"] > 0 for row in rows.values())


def test_a_layer_that_loses_nearly_all_is_named(tmp_path: Path) -> None:
    network = build("encoder")
    network = replace(network, module=copy.deepcopy(network.module))
    with torch.no_grad():
        network.module.get_parameter("up.weight").mul_(1e-6)
    step = PruneWeights(criterion="sensitivity", sparsity=0.6)
    done = compress(network, step, tmp_path)
    assert any(note.startswith("up.weight: less than 1 %") for note in done.notes)


def test_later_steps_add_to_earlier_ones(tmp_path: Path) -> None:
    network = build("encoder")
    first = compress(network, PruneWeights(sparsity=0.4, layers=LayerFilter(include=("up", "down"))), tmp_path)
    gone = {name: first.network.module.get_parameter(name) == 0 for name in first.pruned}
    context = Context({}, Notebook(), tmp_path, calibration=samples(network))
    for criterion in CRITERIA:
        for share in (0.1, 0.7):
            both = METHODS[PruneWeights](first, PruneWeights(sparsity=share, criterion=criterion), context)
            assert both.pruned == ("up.weight", "down.weight", "qkv.weight", "out.weight")
            for name, mask in gone.items():
                assert not both.network.module.get_parameter(name)[mask].any()
            if share == 0.7:
                assert sparsity(both) == pytest.approx(0.7, abs=0.002)


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
def test_a_checkpoint_holds_it(pattern: Any, tmp_path: Path) -> None:
    network = build("residual")
    done = compress(network, PruneWeights(pattern=pattern, criterion="sparsegpt"), tmp_path)
    checkpoint.save(done, [], tmp_path / "c.zip", network)
    again = checkpoint.load(tmp_path / "c.zip", network).compressed
    assert again.pruned == done.pruned
    inputs = tuple(torch.from_numpy(array) for array in samples(network, 4).inputs.values())
    with torch.no_grad():
        torch.testing.assert_close(again.network.module(*inputs)[0], done.network.module(*inputs)[0], rtol=0, atol=1e-5)
    for name in done.pruned:
        assert torch.equal(again.network.module.get_parameter(name) == 0, done.network.module.get_parameter(name) == 0)


@pytest.mark.parametrize("step", [QuantizeStatic(), QuantizeWeights(bits=4)], ids=lambda step: step.method)
def test_zeros_stay_zeros_where_weights_become_integers(step: Any, tmp_path: Path) -> None:
    network = build("residual")
    done = compress(network, PruneWeights(sparsity=0.6), tmp_path)
    context = Context({"onnxruntime": GRIDS["onnxruntime"]}, Notebook(), tmp_path, calibration=samples(network))
    form = METHODS[type(step)](done, step, context).quantized["onnxruntime"]
    for name in done.pruned:
        zeros = done.network.module.get_parameter(name) == 0
        assert not form.weights[name.removesuffix(".weight")].dequantized()[zeros].any()
    fake_quantized(form)


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript", "pt2"])
@pytest.mark.parametrize("name", ["resnet18", "crnn"])
def test_files_hold_it(name: str, exporter: str, tmp_path: Path) -> None:
    path = tmp_path / ("m.pt2" if exporter == "pt2" else "m.onnx")
    export(ARCHITECTURES[name], exporter, path)
    network = formats.read(path)
    done = METHODS[PruneWeights](Compressed(network), PruneWeights(), Context({}, Notebook(), tmp_path))
    drawn = {key: value.numpy() for key, value in ARCHITECTURES[name].draw(8, seed=5).items()}
    if name == "resnet18" and exporter != "pt2":
        assert done.network.source is network.source  # the user's own graph is written again
    exported = TARGETS["onnxruntime"].export_float(Floats(done.network, tmp_path / "float"))
    session = InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    got = session.run(None, drawn)[0]
    with torch.no_grad():
        expected = done.network.module(*(torch.from_numpy(drawn[spec.name]) for spec in network.inputs))[0]
    assert sqnr_db(expected.numpy(), got) > 80
    stored = [numpy_helper.to_array(t) for t in onnx.load(exported.path).graph.initializer]
    zeros = sum(int((value == 0).sum()) for value in stored if value.ndim > 1)
    wanted = sum(int((done.network.module.get_parameter(key) == 0).sum()) for key in done.pruned)
    assert zeros >= wanted


@pytest.mark.parametrize("criterion", ["sensitivity", "wanda", "sparsegpt"])
def test_data_are_asked_for(criterion: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset) as caught:
        METHODS[PruneWeights](
            Compressed(build("encoder")), PruneWeights(criterion=criterion), Context({}, Notebook(), tmp_path)
        )
    assert caught.value.code == "calibration_required"
    assert criterion in caught.value.detail


@pytest.mark.parametrize(
    ("layers", "pattern", "code", "told"),
    [
        ({"include": ["upp"]}, "unstructured", "unknown_layer", "up"),
        ({"include": ["norm*"]}, "unstructured", "no_layers", "left out"),
        ({"include": ["stem"]}, "2:4", "no_layers", "no multiple of 4"),
    ],
)
def test_what_cannot_be_done_is_refused(
    layers: dict[str, Any], pattern: Any, code: str, told: str, tmp_path: Path
) -> None:
    network = build("residual" if "stem" in layers["include"] else "encoder")
    step = PruneWeights(layers=LayerFilter(**layers), pattern=pattern)
    with pytest.raises(Unsupported) as caught:
        METHODS[PruneWeights](Compressed(network), step, Context({}, Notebook(), tmp_path))
    assert caught.value.code == code
    assert told in caught.value.detail


def test_samples_that_overflow_are_named(tmp_path: Path) -> None:
    network = build("encoder")
    data = samples(network)
    data.inputs[network.inputs[0].name][7, 2] = np.nan
    for criterion in ("sensitivity", "wanda", "sparsegpt"):
        with pytest.raises(InvalidDataset) as caught:
            METHODS[PruneWeights](
                Compressed(network),
                PruneWeights(criterion=criterion),
                Context({}, Notebook(), tmp_path, calibration=data),
            )
        assert caught.value.code == "not_finite"


def test_a_half_precision_network_is_pruned_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)).half().eval()
    network = network_of(module, (torch.zeros(2, 16).half(),))
    done = METHODS[PruneWeights](Compressed(network), PruneWeights(), Context({}, Notebook(), tmp_path))
    assert sparsity(done) == pytest.approx(0.5, abs=0.01)
    assert done.network.module.get_parameter("0.weight").dtype == torch.float16


TRAINING = {"epochs": 3, "batch_size": 32, "learning_rate": 3e-3}


@pytest.mark.parametrize(("criterion", "share"), [("magnitude", 0.75), ("sensitivity", 0.65), ("wanda", 0.6)])
def test_gradually_much_more_can_go(criterion: str, share: float, trained: Network, tmp_path: Path) -> None:
    data = handwriting.training(trained)
    settings = {"sparsity": share, "criterion": criterion, "samples": 64}
    at_once = handwriting.run(trained, PruneWeights(**settings), tmp_path, calibration=data)
    step = PruneWeights(**settings, schedule="gradual", **TRAINING)
    done = handwriting.run(trained, step, tmp_path, calibration=data)
    assert sparsity(done) == pytest.approx(share, abs=0.001)
    lost, kept, whole = (handwriting.accuracy(n.module) for n in (at_once.network, done.network, trained))
    assert lost < whole - 0.1
    assert kept > whole - 0.08
    assert len(done.curves["loss"]) == 3
    assert not done.network.module.training
    assert done.network.module.state_dict().keys() == trained.module.state_dict().keys()


def test_l1_alone_trains_and_then_prunes(trained: Network, tmp_path: Path) -> None:
    step = PruneWeights(sparsity=0.7, l1=1.0, **TRAINING)
    done = handwriting.run(trained, step, tmp_path)
    assert sparsity(done) == pytest.approx(0.7, abs=0.001)
    assert handwriting.accuracy(done.network.module) > handwriting.accuracy(trained.module) - 0.06


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": "gradual", "sparsity": 0.8},
        {"schedule": "gradual", "pattern": "2:4", "criterion": "wanda"},
        {"schedule": "gradual", "criterion": "sensitivity", "l1": 5.0},
        {"l1": 5.0},
    ],
    ids=str,
)
def test_an_interrupted_one_ends_with_the_same_numbers(
    settings: dict[str, Any], trained: Network, tmp_path: Path
) -> None:
    step = PruneWeights(samples=32, **TRAINING, **settings)
    more = {"calibration": handwriting.training(trained)}
    whole = handwriting.run(trained, step, tmp_path, **more)
    partial = handwriting.interrupted(trained, step, tmp_path, **more)
    resumed = handwriting.run(trained, step, tmp_path, resumed=partial, **more)
    assert resumed.curves == whole.curves
    assert resumed.notes == whole.notes
    handwriting.same_numbers(whole.network, resumed.network)


def test_training_respects_what_earlier_steps_have_pruned(trained: Network, tmp_path: Path) -> None:
    first = handwriting.run(trained, PruneWeights(sparsity=0.3), tmp_path)
    gone = {name: first.network.module.get_parameter(name) == 0 for name in first.pruned}
    context = Context({}, Notebook(), tmp_path, training=handwriting.training(trained), task="classification")
    step = PruneWeights(sparsity=0.6, schedule="gradual", layers=LayerFilter(include=("6", "11")), **TRAINING)
    done = METHODS[PruneWeights](first, step, context)
    assert done.pruned == first.pruned
    assert all(not done.network.module.get_parameter(name)[zeros].any() for name, zeros in gone.items())
    shares = {name: float((done.network.module.get_parameter(name) == 0).float().mean()) for name in done.pruned}
    both = [done.network.module.get_parameter(name) for name in ("6.weight", "11.weight")]
    assert sum(int((w == 0).sum()) for w in both) / sum(w.numel() for w in both) == pytest.approx(0.6, abs=0.001)
    assert shares["3.weight"] == pytest.approx(float(gone["3.weight"].float().mean()), abs=0.01)


@pytest.mark.parametrize("method", [Finetune, QuantizeAwareTraining])
def test_zeros_survive_later_trainings(method: Any, trained: Network, tmp_path: Path) -> None:
    pruned = handwriting.run(trained, PruneWeights(sparsity=0.6), tmp_path)
    data = handwriting.training(trained)
    context = Context(
        {"onnxruntime": GRIDS["onnxruntime"]}, Notebook(), tmp_path,
        training=data, calibration=data.take(np.arange(64)), task="classification",
    )  # fmt: skip
    done = METHODS[method](pruned, method(**{**TRAINING, "epochs": 1}), context)
    form = done.quantized.get("onnxruntime")
    for name in pruned.pruned:
        zeros = pruned.network.module.get_parameter(name) == 0
        key = name.removesuffix(".weight")
        weight = done.network.module.get_parameter(name) if form is None else form.weights[key].dequantized()
        assert not weight[zeros].any()
        assert float((weight != 0).float().mean()) > 0.01


def test_a_network_of_linear_and_recurrent_layers_trains_too(tmp_path: Path) -> None:
    network = everything.words()
    data = everything.samples(network, 64, 2)
    context = Context({}, Notebook(), tmp_path, training=data, calibration=data, task="classification")
    step = PruneWeights(criterion="sensitivity", schedule="gradual", epochs=2, batch_size=8, samples=16)
    done = METHODS[PruneWeights](Compressed(network), step, context)
    assert sparsity(done) == pytest.approx(0.5, abs=0.001)
    assert "gru.weight_hh_l0" in done.pruned


def test_training_data_are_asked_for(trained: Network, tmp_path: Path) -> None:
    data = handwriting.training(trained)
    for more, step, code in (
        ({"training": None}, PruneWeights(schedule="gradual"), "training_required"),
        ({"training": replace(data, labels=None)}, PruneWeights(l1=1.0, teacher=False), "labels_required"),
    ):
        with pytest.raises(InvalidDataset) as caught:
            handwriting.run(trained, step, tmp_path, **more)
        assert caught.value.code == code
    with pytest.raises(Unsupported) as refused:
        handwriting.run(trained, PruneWeights(l1=1.0, teacher=False), tmp_path, task="detection")
    assert refused.value.code == "task_unsupported"
