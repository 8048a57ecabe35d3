"""What every method that learns from samples answers to models that cannot learn."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from app.recipes.methods import Distill, Finetune, PruneChannels, PruneWeights, SearchArchitecture
from tests.support import handwriting
from worker.engine.data.samples import Samples
from worker.engine.errors import Unsupported
from worker.engine.formats.lift import network_of
from worker.engine.network import Network


class Chosen(nn.Module):
    """Returns class numbers, which no gradient comes through."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(x))).argmax(1)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.one, self.two = nn.Linear(8, 16), nn.Linear(16, 4), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = torch.relu(self.body(x))
        return self.one(features), self.two(features)


class Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(8, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(x)))


class Rounded(Wide):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).bfloat16()


def network(module: nn.Module, dtype: torch.dtype = torch.float32) -> Network:
    torch.manual_seed(0)
    return network_of(module.eval().to(dtype), (torch.zeros(2, 8, dtype=dtype),))


def samples(given: Network, labels: Any = None) -> Samples:
    kind = np.float16 if given.inputs[0].dtype == "float16" else np.float32
    inputs = np.random.default_rng(0).normal(size=(64, 8)).astype(kind)
    return Samples({given.inputs[0].name: inputs}, labels)


CLASSES = np.random.default_rng(1).integers(0, 4, 64)


@pytest.mark.parametrize(
    ("module", "step", "labels"),
    [
        (Two, Finetune(layers={"include": ["two"]}), CLASSES),
        (Two, Distill(layers={"include": ["two"]}, losses={"soft_labels": None}), CLASSES),
        (Chosen, Distill(), None),
        (Chosen, PruneWeights(criterion="sensitivity"), None),
        (Chosen, PruneChannels(criterion="taylor"), None),
        (Chosen, SearchArchitecture(epochs=1, trials=4), None),
    ],
)
def test_what_nothing_can_be_learned_from_is_told(module: Any, step: Any, labels: Any, tmp_path: Path) -> None:
    given = network(module())
    data = samples(given, labels)
    task = None if labels is None else "classification"
    with pytest.raises(Unsupported) as caught:
        handwriting.run(given, step, tmp_path, training=data, calibration=data, task=task, original=given)
    assert caught.value.code == "no_gradient"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_16_bits_are_not_trained(dtype: torch.dtype, tmp_path: Path) -> None:
    given = network(Wide(), dtype)
    with pytest.raises(Unsupported) as caught:
        handwriting.run(given, Finetune(), tmp_path, training=samples(given, CLASSES), original=given)
    assert caught.value.code == "dtype_unsupported"


def test_answers_in_bfloat16_teach(tmp_path: Path) -> None:
    given = network(Rounded())
    step = Distill(epochs=1, losses={"task": None})
    done = handwriting.run(given, step, tmp_path, training=samples(given), task=None, original=given)
    assert len(done.curves["loss"]) == 1


def test_numbers_are_not_compared_as_classes_where_the_task_is_known(tmp_path: Path) -> None:
    """Without labels too."""
    given = network(Wide())
    step = SearchArchitecture(epochs=1, trials=4, limit_ratio=0.7, round_to=1)
    done = handwriting.run(given, step, tmp_path, training=samples(given), task="regression", original=given)
    assert any("mse" in note for note in done.notes)
