"""Small networks that together use everything quantization has to deal with, and samples for them."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from app.recipes import TARGETS, Step
from worker.engine.data.samples import Samples
from worker.engine.formats.lift import network_of
from worker.engine.measure.machine import saturates
from worker.engine.methods import METHODS
from worker.engine.network import Network
from worker.engine.state import Compressed, Context


class Residual(nn.Module):
    """Convolutions, batch norms, an added shortcut, max and average pooling: a small ResNet."""

    shapes = ((3, 16, 16),)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.one = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.one_norm = nn.BatchNorm2d(16)
        self.two = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.norm(self.stem(x))), 2)
        x = F.relu(self.two(F.relu(self.one_norm(self.one(x)))) + x)
        x = F.relu(self.two(x) + x)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Mobile(nn.Module):
    """Depthwise and grouped convolutions, ReLU6, hard swish, SiLU, squeeze and excitation."""

    shapes = ((8, 12, 12),)

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(8, 24, 1)
        self.depthwise = nn.Conv2d(24, 24, 3, padding=1, stride=2, groups=24)
        self.squeeze = nn.Conv2d(24, 6, 1)
        self.excite = nn.Conv2d(6, 24, 1)
        self.grouped = nn.Conv2d(24, 16, 3, padding="same", groups=2)
        self.last = nn.Conv2d(16, 12, 3, padding=1, dilation=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.depthwise(F.relu6(self.expand(x)) * 3))
        x = x * F.hardsigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return self.last(F.silu(self.grouped(F.hardswish(x)))).mean((2, 3))


class Branches(nn.Module):
    """Concatenation, multiplication, average pooling, a value that is read both ways."""

    shapes = ((4, 10, 10),)

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(4, 8, 1)
        self.b = nn.Conv2d(4, 8, 3, padding=1)
        self.c = nn.Conv2d(16, 8, 1)
        self.d = nn.Conv2d(8, 6, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = F.relu(self.a(x)), self.b(x)
        c = self.c(torch.cat([a, b], 1))
        return self.d(c * b), torch.tanh(F.avg_pool2d(c, 2))


class Signal(nn.Module):
    """One-dimensional convolutions."""

    shapes = ((2, 40),)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(2, 8, 5, padding=2)
        self.second = nn.Conv1d(8, 8, 3, stride=2, groups=8)
        self.head = nn.Linear(8 * 19, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.leaky_relu(self.second(F.relu(self.first(x))), 0.1).flatten(1))


class TwoInputs(nn.Module):
    """Linear layers, with and without bias, on two inputs of different shapes."""

    shapes = ((6,), (4,))

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(6, 16)
        self.right = nn.Linear(4, 16, bias=False)
        self.mix = nn.Linear(16, 16)
        self.head = nn.Linear(16, 2)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        x = F.relu(self.left(left)) + F.relu(self.right(right))
        return self.head(F.relu(self.mix(x)))


class Encoder(nn.Module):
    """A transformer block: attention, layer norm, GELU, three-dimensional linear layers."""

    shapes = ((7, 16),)

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.qkv = nn.Linear(16, 48)
        self.out = nn.Linear(16, 16)
        self.norm2 = nn.LayerNorm(16)
        self.up = nn.Linear(16, 32)
        self.down = nn.Linear(32, 16, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (p.unflatten(-1, (2, 8)).transpose(1, 2) for p in self.qkv(self.norm(x)).chunk(3, -1))
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.out(attended)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Attention(nn.Module):
    """PyTorch's own attention: (time, batch) layouts, merged dimensions, an output layer whose bias is zero."""

    shapes = ((6, 16),)

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.head = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return self.head(x + self.attention(y, y, y, need_weights=False)[0])


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "residual": Residual,
    "mobile": Mobile,
    "branches": Branches,
    "signal": Signal,
    "two_inputs": TwoInputs,
    "encoder": Encoder,
    "attention": Attention,
}


@functools.cache
def build(name: str, seed: int = 0) -> Network:
    """One of `NETWORKS` with random weights and settled batch norms; shared, since no method changes its input."""
    torch.manual_seed(seed)
    module = NETWORKS[name]()
    shapes: Any = module.shapes
    module.train()
    with torch.no_grad():
        for _ in range(10):
            module(*(torch.randn(32, *shape) for shape in shapes))
    return network_of(module.eval(), tuple(torch.randn(3, *shape) for shape in shapes))


def samples(network: Network, count: int = 48, seed: int = 1) -> Samples:
    """Normal inputs for `network`."""
    random = np.random.default_rng(seed)
    sizes = [[dim for dim in spec.shape[1:] if isinstance(dim, int)] for spec in network.inputs]
    arrays = [random.standard_normal((count, *size)).astype(np.float32) for size in sizes]
    return Samples({spec.name: array for spec, array in zip(network.inputs, arrays, strict=True)})


class Notebook:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.fractions: list[float] = []
        self.lines: list[str] = []

    def progress(self, phase: str, fraction: float) -> None:
        self.fractions.append(fraction)

    def log(self, message: str, level: str = "info") -> None:
        self.lines.append(message)

    def metric(self, name: str, value: Any) -> None:
        self.lines.append(f"{name}={value}")

    def checkpoint(self, label: str, file: Path) -> None:
        self.lines.append(label)

    def measuring(self) -> AbstractContextManager[None]:
        return nullcontext()


def compress(network: Network, step: Step, folder: Path, targets: tuple[str, ...] = ("onnxruntime",)) -> Compressed:
    """Run one step with calibration samples for some targets."""
    grids = {name: TARGETS[name] for name in targets}
    context = Context(grids, Notebook(), folder, calibration=samples(network), saturating=saturates())
    return METHODS[type(step)](Compressed(network), step, context)


def sqnr_db(signal: Any, noisy: Any) -> float:
    """Signal-to-noise ratio of `noisy` as an approximation of `signal`, in dB."""
    signal, noisy = np.asarray(signal, np.float64), np.asarray(noisy, np.float64)
    return float(10 * np.log10(np.square(signal).sum() / max(np.square(noisy - signal).sum(), 1e-30)))
