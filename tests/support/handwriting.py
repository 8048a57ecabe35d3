"""A small network trained on scikit-learn's digits: real accuracy to lose and to win back in training, in seconds."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from app.recipes import TARGETS as GRIDS
from app.recipes import Step
from tests.support.quantizable import Notebook
from worker.engine import checkpoint
from worker.engine.data.samples import Samples
from worker.engine.methods import METHODS
from worker.engine.network import Network
from worker.engine.state import Compressed, Context, Partial

_HELD_OUT = 700
M = TypeVar("M", bound=nn.Module)


@cache
def _data() -> tuple[np.ndarray, np.ndarray]:
    images, labels = load_digits(return_X_y=True)
    return (images.reshape(-1, 1, 8, 8) / 16).astype(np.float32), labels.astype(np.int64)


def training(network: Network) -> Samples:
    """Training samples with labels."""
    images, labels = _data()
    return Samples({network.inputs[0].name: images[:-_HELD_OUT]}, labels[:-_HELD_OUT])


def accuracy(module: Callable[..., Any]) -> float:
    """Of the first output, on samples that were not trained on; 0..1."""
    images, labels = _data()
    with torch.no_grad():
        scores = module(torch.from_numpy(images[-_HELD_OUT:]))[0]
    return float((scores.argmax(1).numpy() == labels[-_HELD_OUT:]).mean())


def trained(norm: bool, width: int = 8) -> nn.Sequential:
    """Three convolutions, the middle one depthwise, with or without batch norms, and a linear layer."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for conv in (
        nn.Conv2d(1, width, 3, 2, 1),
        nn.Conv2d(width, width, 3, 1, 1, groups=width),
        nn.Conv2d(width, 2 * width, 1),
    ):
        layers += [conv, *([nn.BatchNorm2d(conv.out_channels)] if norm else []), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8 * width, 10))
    return fit(net, epochs=10, rate=1e-2)


def fit(net: M, epochs: int, rate: float) -> M:
    """Trained on the digits."""
    optimizer = torch.optim.AdamW(net.train().parameters(), lr=rate)
    x, y = (torch.from_numpy(array[:-_HELD_OUT]) for array in _data())
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval()


class TwoHeads(nn.Module):
    """Which digit it is, and how much ink it took."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten())
        self.digit, self.ink = nn.Linear(256, 10), nn.Linear(256, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.body(x)
        return self.digit(y), self.ink(y)


def two_heads() -> TwoHeads:
    """Not trained yet."""
    torch.manual_seed(0)
    return TwoHeads().eval()


def boxes() -> TwoHeads:
    """A class and four numbers; not trained yet."""
    heads = two_heads()
    heads.ink = nn.Linear(256, 4)
    return heads.eval()


def copied(network: Network) -> Network:
    """The same with weights of its own."""
    return replace(network, module=copy.deepcopy(network.module))


def run(network: Network, step: Step, folder: Path, **context: Any) -> Compressed:
    """The step for the torch target, with the digits as training samples unless `context` has others."""
    surroundings = Context(
        **{
            "grids": {"torch": GRIDS["torch"]},
            "reporter": Notebook(),
            "folder": folder,
            "training": training(network),
            "task": "classification",
            **context,
        }
    )
    return METHODS[type(step)](Compressed(network), step, surroundings)


def same_numbers(one: Network, other: Network) -> None:
    """Assert that two networks have the same weights and buffers, bit for bit."""
    ours, theirs = one.module.state_dict(), other.module.state_dict()
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key], rtol=0, atol=0)


class _Interrupted(Exception):
    pass


def interrupted(network: Network, step: Step, folder: Path, epochs: int = 1, **context: Any) -> Partial:
    """What is kept of a step that stops after so many epochs in all its trainings, through a file."""
    kept: list[Partial] = []

    def keep(label: str, partial: Partial) -> None:
        kept.append(partial)
        if len(kept) == epochs:
            raise _Interrupted

    try:
        run(network, step, folder, keep=keep, **context)
    except _Interrupted:
        checkpoint.save(Compressed(network), [], folder / "c.zip", network, kept[-1])
    partial = checkpoint.load(folder / "c.zip", network).partial
    assert partial is not None
    return partial
