"""``finetune``: what it wins back, what stays zero, when it stops, and going on after an interruption."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.recipes import TARGETS as GRIDS
from app.recipes.methods import Finetune
from tests.support import handwriting
from tests.support.quantizable import Notebook
from worker.engine.data.samples import Samples
from worker.engine.errors import InvalidDataset, Unsupported
from worker.engine.formats.lift import network_of
from worker.engine.methods import METHODS
from worker.engine.network import Network
from worker.engine.state import Compressed, Context

EPOCHS = {"epochs": 4, "batch_size": 32, "learning_rate": 3e-3}


@pytest.fixture(scope="module")
def network() -> Network:
    return network_of(handwriting.trained(norm=True, width=16), (torch.zeros(2, 1, 8, 8),))


@pytest.fixture(scope="module")
def thinned(network: Network) -> Compressed:
    """Most small weights are zero now, and much is forgotten."""
    done = handwriting.copied(network)
    names = []
    with torch.no_grad():
        for name, parameter in done.module.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(parameter.abs() >= parameter.abs().flatten().quantile(0.7))
                names.append(name)
    return Compressed(done, pruned=tuple(names))


def tuned(compressed: Compressed, folder: Path, context: Any = None, **changes: Any) -> Compressed:
    surroundings = {
        "grids": {"torch": GRIDS["torch"]}, "reporter": Notebook(), "folder": folder,
        "training": handwriting.training(compressed.network), "task": "classification", **(context or {}),
    }  # fmt: skip
    return METHODS[Finetune](compressed, Finetune(**{**EPOCHS, **changes}), Context(**surroundings))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_it_wins_back_what_was_lost_and_zeros_stay(
    optimizer: str, network: Network, thinned: Compressed, tmp_path: Path
) -> None:
    before = {key: value.clone() for key, value in thinned.network.module.state_dict().items()}
    rate = 3e-3 if optimizer == "adamw" else 0.05
    done = tuned(thinned, tmp_path, optimizer=optimizer, learning_rate=rate)
    whole, lost, after = (handwriting.accuracy(n.module) for n in (network, thinned.network, done.network))
    assert whole - lost > 0.05
    assert after > whole - 0.03
    assert len(done.curves["loss"]) == len(done.curves["accuracy"]) == 4
    for name in thinned.pruned:
        zeros = before[name] == 0
        assert bool((done.network.module.get_parameter(name)[zeros] == 0).all())
        assert int((done.network.module.get_parameter(name)[~zeros] == 0).sum()) <= 1
    for key, value in thinned.network.module.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)
    assert not done.network.module.training


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("patience", [0, 2])
def test_an_interrupted_one_ends_with_the_same_numbers(
    optimizer: str, patience: int, network: Network, tmp_path: Path
) -> None:
    step = Finetune(**{**EPOCHS, "epochs": 3}, optimizer=optimizer, patience=patience)
    whole = handwriting.run(network, step, tmp_path)
    partial = handwriting.interrupted(network, step, tmp_path)
    resumed = handwriting.run(network, step, tmp_path, resumed=partial)
    assert resumed.curves == whole.curves
    handwriting.same_numbers(whole.network, resumed.network)


def test_patience_goes_back_to_the_best_epoch(network: Network, tmp_path: Path) -> None:
    notebook = Notebook()
    # So fast that every epoch is worse than the one before it, sooner or later.
    changes = {"optimizer": "sgd", "learning_rate": 0.9, "weight_decay": 0.0, "epochs": 60, "patience": 2}
    done = tuned(Compressed(network), tmp_path, {"reporter": notebook}, **changes)
    losses = done.curves["validation_loss"]
    best = losses.index(min(losses))
    assert len(losses) == best + 3 < 60
    assert any("out of patience" in line for line in notebook.lines)
    again = tuned(Compressed(network), tmp_path, **{**changes, "epochs": 60, "patience": len(losses) - best - 1})
    handwriting.same_numbers(done.network, again.network)


def test_every_result_that_has_labels_is_learned(tmp_path: Path) -> None:
    """Two heads: one scores classes, one answers a number."""
    network = network_of(handwriting.two_heads(), (torch.zeros(2, 1, 8, 8),))
    samples = handwriting.training(network)
    ink = samples.inputs[network.inputs[0].name].mean((1, 2, 3))[:, None]
    both = Samples(samples.inputs, samples.labels, {network.outputs[1].name: ink})
    done = tuned(Compressed(network), tmp_path, {"training": both}, epochs=6)
    with torch.no_grad():
        images = torch.from_numpy(samples.inputs[network.inputs[0].name])
        before, after = (
            float((n.module(images)[1] - torch.from_numpy(ink)).square().mean()) for n in (network, done.network)
        )
    assert after < before / 4
    assert handwriting.accuracy(done.network.module) > handwriting.accuracy(network.module) + 0.3


def test_a_further_output_of_several_numbers_is_not_taken_for_scores(tmp_path: Path) -> None:
    """Corners of a box beside the class: (samples, 4) floats."""
    network = network_of(handwriting.boxes(), (torch.zeros(2, 1, 8, 8),))
    samples = handwriting.training(network)
    images = samples.inputs[network.inputs[0].name]
    corners = images.reshape(len(images), 4, 16).mean(2)
    both = Samples(samples.inputs, samples.labels, {network.outputs[1].name: corners})
    done = tuned(Compressed(network), tmp_path, {"training": both}, epochs=6)
    with torch.no_grad():
        errors = [
            float((n.module(torch.from_numpy(images))[1] - torch.from_numpy(corners)).square().mean())
            for n in (network, done.network)
        ]
    assert errors[1] < errors[0] / 4


def test_a_held_back_loss_without_a_number_ends_it_with_a_code(network: Network, tmp_path: Path) -> None:
    samples = handwriting.training(network)
    (name, images), *_ = samples.inputs.items()
    # 3e38 overflows in the first layer; the training loop itself would meet it too, in samples that are trained on.
    huge = Samples({name: np.where(np.arange(len(images))[:, None, None, None] % 2, images, 3e38)}, samples.labels)
    with pytest.raises(Unsupported) as caught:
        tuned(Compressed(network), tmp_path, {"training": huge}, patience=1)
    assert caught.value.code == "training_diverged"


def test_only_the_chosen_layers_train(network: Network, tmp_path: Path) -> None:
    done = tuned(Compressed(network), tmp_path, layers={"include": ["11"]}, epochs=1)
    moved = {
        name
        for name, value in done.network.module.state_dict().items()
        if not torch.equal(value, network.module.state_dict()[name])
    }
    assert moved == {"11.weight", "11.bias"}


def test_it_says_what_it_needs(network: Network, tmp_path: Path) -> None:
    unlabelled = replace(handwriting.training(network), labels=None)
    with pytest.raises(InvalidDataset) as caught:
        tuned(Compressed(network), tmp_path, {"training": unlabelled})
    assert caught.value.code == "labels_required"
    with pytest.raises(Unsupported) as refused:
        tuned(Compressed(network), tmp_path, {"task": "detection"})
    assert refused.value.code == "task_unsupported"
    with pytest.raises(Unsupported, match="no layer is called 'head'") as unknown:
        tuned(Compressed(network), tmp_path, layers={"include": ["head"]})
    assert unknown.value.code == "unknown_layer"
    with pytest.raises(InvalidDataset) as missing:
        tuned(Compressed(network), tmp_path, {"training": None})
    assert missing.value.code == "training_required"
