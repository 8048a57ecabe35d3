"""``distill``: who learns, from what, and going on after an interruption."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from app.recipes.methods import Distill
from tests.support import handwriting
from tests.support.quantizable import Notebook, build, samples
from worker.engine.errors import InvalidDataset, Unsupported
from worker.engine.formats.lift import network_of
from worker.engine.measure.macs import count_macs
from worker.engine.network import Network
from worker.engine.state import Compressed

FAST = {"epochs": 6, "batch_size": 32, "learning_rate": 5e-3}


@pytest.fixture(scope="module")
def teacher() -> Network:
    return network_of(handwriting.trained(norm=True, width=24), (torch.zeros(2, 1, 8, 8),))


@pytest.fixture(scope="module")
def beginner(teacher: Network) -> Network:
    """The same network, knowing nothing."""
    network = handwriting.copied(teacher)
    torch.manual_seed(1)
    for part in network.module.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)):
            part.reset_parameters()
    return network


def taught(network: Network, teacher: Network, folder: Path, context: Any = None, **step: Any) -> Compressed:
    return handwriting.run(network, Distill(**{**FAST, **step}), folder, original=teacher, **(context or {}))


@pytest.mark.parametrize(
    "losses",
    [
        {"task": None},
        {"soft_labels": None, "features": {}},
        {"soft_labels": None, "features": {"layers": ["0", "4", "7"], "weight": 3}},
        {"soft_labels": {"temperature": 2, "weight": 0.5}, "features": {"weight": 2}},
    ],
    ids=["soft labels", "features and labels", "features of some layers", "all"],
)
def test_a_beginner_learns_from_each_loss(
    losses: dict[str, Any], teacher: Network, beginner: Network, tmp_path: Path
) -> None:
    before = {key: value.clone() for key, value in teacher.module.state_dict().items()}
    done = taught(beginner, teacher, tmp_path, losses=losses)
    assert handwriting.accuracy(beginner.module) < 0.3
    assert handwriting.accuracy(done.network.module) > 0.8
    assert len(done.curves["loss"]) == FAST["epochs"]
    assert any("features were learned" in note for note in done.notes) == ("features" in losses)
    assert done.network.module.state_dict().keys() == teacher.module.state_dict().keys()  # no projection is left
    for key, value in teacher.module.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


def test_without_labels_the_teacher_is_enough(teacher: Network, beginner: Network, tmp_path: Path) -> None:
    unlabelled = replace(handwriting.training(beginner), labels=None)
    done = taught(beginner, teacher, tmp_path, {"training": unlabelled, "task": None})
    assert handwriting.accuracy(done.network.module) > 0.8
    with pytest.raises(InvalidDataset) as caught:
        taught(beginner, teacher, tmp_path, {"training": unlabelled}, losses={"soft_labels": None})
    assert caught.value.code == "labels_required"


def test_a_narrower_copy_is_smaller_and_learns(teacher: Network, tmp_path: Path) -> None:
    losses = {"features": {}}
    done = taught(teacher, teacher, tmp_path, student={"width": 0.5}, losses=losses)
    assert sum(count_macs(done.network).values()) < 0.5 * sum(count_macs(teacher).values())
    assert handwriting.accuracy(done.network.module) > handwriting.accuracy(teacher.module) - 0.1
    assert any("narrower" in note for note in done.notes)


def test_a_shallower_copy_lacks_blocks(tmp_path: Path) -> None:
    network = build("encoder")
    data = samples(network, 64)
    done = taught(
        network, network, tmp_path, {"training": data, "task": None}, student={"depth": 0.4, "width": 0.5}, epochs=1
    )
    assert any("lacks 1 of 2 residual blocks" in note for note in done.notes)
    assert done.network.parameters < network.parameters


def test_another_uploaded_model_takes_the_place(teacher: Network, tmp_path: Path) -> None:
    torch.manual_seed(2)
    other = network_of(
        nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10)).eval(),
        (torch.zeros(2, 1, 8, 8),),
    )
    named = replace(other, outputs=(replace(other.outputs[0], name="scores"),))
    done = taught(
        teacher, teacher, tmp_path, {"models": {"mdl_2": lambda: named}}, student={"model_id": "mdl_2"},
        losses={"features": {}},
    )  # fmt: skip
    assert done.network.parameters == other.parameters
    assert done.network.outputs[0].name == teacher.outputs[0].name
    assert handwriting.accuracy(done.network.module) > 0.8
    wrong = network_of(nn.Sequential(nn.Flatten(), nn.Linear(64, 9)).eval(), (torch.zeros(2, 1, 8, 8),))
    with pytest.raises(Unsupported) as caught:
        taught(teacher, teacher, tmp_path, {"models": {"m": lambda: wrong}}, student={"model_id": "m"})
    assert caught.value.code == "model_mismatch"


def test_a_student_with_a_softmax_is_no_student_of_scores(teacher: Network, tmp_path: Path) -> None:
    other = network_of(nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Softmax(1)).eval(), (torch.zeros(2, 1, 8, 8),))
    with pytest.raises(Unsupported, match="softmax") as caught:
        taught(teacher, teacher, tmp_path, {"models": {"m": lambda: other}}, student={"model_id": "m"})
    assert caught.value.code == "model_mismatch"


@pytest.mark.parametrize("student", [{"depth": 0.5}, {"width": 0.999}])
def test_a_copy_that_would_be_no_smaller_is_refused(student: Any, teacher: Network, tmp_path: Path) -> None:
    with pytest.raises(Unsupported) as caught:
        taught(teacher, teacher, tmp_path, student=student)
    assert caught.value.code == "no_layers"


@pytest.mark.parametrize("student", [None, {"width": 0.5}])
def test_an_interrupted_one_ends_with_the_same_numbers(
    student: Any, teacher: Network, beginner: Network, tmp_path: Path
) -> None:
    step = Distill(**{**FAST, "epochs": 3}, student=student, losses={"features": {}})
    whole = handwriting.run(beginner, step, tmp_path, original=teacher)
    partial = handwriting.interrupted(beginner, step, tmp_path, original=teacher)
    notebook = Notebook()
    resumed = handwriting.run(beginner, step, tmp_path, original=teacher, resumed=partial, reporter=notebook)
    assert any("goes on after epoch 1 of 3" in line for line in notebook.lines)
    assert resumed.curves == whole.curves
    handwriting.same_numbers(whole.network, resumed.network)


def test_a_layer_that_is_not_there_is_named(teacher: Network, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="no layer is called 'head'") as caught:
        taught(teacher, teacher, tmp_path, losses={"features": {"layers": ["head"]}})
    assert caught.value.code == "unknown_layer"
