"""One small network of each kind, trained on real data in seconds: digits and a table, of scikit-learn."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional as F

from worker.engine.formats.lift import quiet_export

Data = tuple[np.ndarray, dict[str, np.ndarray]]


def _images() -> Data:
    """Digits, which one it is, and how much ink it took."""
    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    return images, {"label": labels.astype(np.int64), "ink": images.mean((1, 2, 3))[:, None], "image": images}


def _rows() -> Data:
    """The rows of each digit as a sequence of eight vectors."""
    images, labels = _images()
    return images[:, 0], labels


def _table() -> Data:
    table, labels = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(table))
    scaled = StandardScaler().fit_transform(table)[order].astype(np.float32)
    return scaled, {"label": labels[order].astype(np.int64)}


def conv(inputs: int, outputs: int, stride: int = 1, groups: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(conv(1, 16), conv(16, 24, 2), conv(24, 32, 2), nn.Flatten(), nn.Linear(128, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = conv(1, 16), conv(16, 24, 2)
        self.one, self.two = nn.Sequential(conv(16, 16), conv(16, 16)), nn.Sequential(conv(24, 24), conv(24, 24))
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.down(x + self.one(x))
        return self.head((x + self.two(x)).mean((2, 3)))


class Dense(nn.Module):
    """Every layer reads all layers before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(1, 16)
        self.layers = nn.ModuleList([conv(16 + 8 * index, 8) for index in range(3)])
        self.mix, self.head = conv(40, 24, 2, kernel=1), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.stem(x)]
        for layer in self.layers:
            parts.append(layer(torch.cat(parts, 1)))
        return self.head(self.mix(torch.cat(parts, 1)).mean((2, 3)))


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            conv(1, 16), conv(16, 16, 2, groups=16), conv(16, 32, kernel=1), conv(32, 32, groups=32),
            conv(32, 48, kernel=1), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(48, 10),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            conv(1, 32), conv(32, 32, 2, groups=4), conv(32, 48, kernel=1), conv(48, 48, groups=3), nn.AvgPool2d(4),
            nn.Flatten(), nn.Linear(48, 10),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class UNet(nn.Module):
    """Which digit, and the digit without noise."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.middle, self.deep = conv(1, 16), conv(16, 24, 2), conv(24, 24)
        self.up, self.join, self.image = nn.ConvTranspose2d(24, 16, 2, 2), conv(32, 16), nn.Conv2d(16, 1, 1)
        self.digit = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        high = self.down(x)
        low = self.deep(self.middle(high))
        return self.digit(low.mean((2, 3))), self.image(self.join(torch.cat([high, self.up(low)], 1)))


class Encoder(nn.Module):
    """Two layers of a transformer over the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Linear(8, 32), nn.Parameter(0.1 * torch.randn(1, 8, 32))
        self.layers = nn.ModuleList([_Attended(32, 4) for _ in range(2)])
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) + self.place
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x).mean(1))


class _Attended(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 64), nn.Linear(64, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        batch, length, width = y.shape
        q, k, v = (
            part(y).view(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for part in (self.q, self.k, self.v)
        )
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, width)
        x = x + self.out(y)
        return x + self.down(F.gelu(self.up(self.second(x))))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm = nn.Linear(8, 24), nn.LSTM(24, 32, batch_first=True)
        self.hidden, self.head = nn.Linear(32, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.lstm(torch.relu(self.embed(x)))
        return self.head(torch.relu(self.hidden(y[:, -1])))


class Tabular(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TwoTasks(nn.Module):
    """Which digit, and how much ink."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(1, 16), conv(16, 32, 2))
        self.hidden, self.digit, self.ink = nn.Linear(32, 32), nn.Linear(32, 10), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.relu(self.hidden(self.body(x).mean((2, 3))))
        return self.digit(y), self.ink(y)


@dataclass(frozen=True)
class Kind:
    """A network and what it learns; `more`: output -> its labels, for outputs beside the first."""

    make: Callable[[], nn.Module]
    data: Callable[[], Data]
    more: tuple[str, ...] = ()


KINDS = {
    "plain": Kind(Plain, _images),
    "residual": Kind(Residual, _images),
    "dense": Kind(Dense, _images),
    "depthwise": Kind(Depthwise, _images),
    "grouped": Kind(Grouped, _images),
    "unet": Kind(UNet, _images, ("image",)),
    "transformer": Kind(Encoder, _rows),
    "lstm": Kind(Recurrent, _rows),
    "tabular": Kind(Tabular, _table),
    "two_tasks": Kind(TwoTasks, _images, ("ink",)),
}
_HELD_OUT = 5  # one sample in so many


@dataclass(frozen=True)
class Made:
    """A trained network as a ``.pt2`` and its datasets."""

    model: Path
    data: dict[str, Path]


@cache
def _trained(name: str) -> nn.Module:
    kind = KINDS[name]
    torch.manual_seed(0)
    module = kind.make().train()
    inputs, labels = kind.data()
    x = torch.from_numpy(inputs[: -len(inputs) // _HELD_OUT])
    wanted = {key: torch.from_numpy(values[: len(x)]) for key, values in labels.items()}
    epochs = 12
    optimizer = torch.optim.AdamW(module.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, epochs * -(-len(x) // 64))
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            results: Any = module(x[rows])
            results = results if isinstance(results, tuple) else (results,)
            loss = F.cross_entropy(results[0], wanted["label"][rows])
            for result, key in zip(results[1:], kind.more, strict=True):
                loss = loss + 10 * F.mse_loss(result, wanted[key][rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return module.eval()


def made(name: str, folder: Path) -> Made:
    """The network of this kind and its data in files."""
    kind, module = KINDS[name], _trained(name)
    inputs, labels = kind.data()
    example = (torch.from_numpy(inputs[:3]),)
    exported = quiet_export(module, example, ({0: torch.export.Dim("batch")},))
    torch.export.save(exported, folder / "net.pt2")
    cut = len(inputs) - len(inputs) // _HELD_OUT
    columns = {"input": inputs, "label": labels["label"]}
    columns |= {f"label_output_{index}": labels[key] for index, key in enumerate(kind.more, 1)}
    files = {role: folder / f"{role}.npz" for role in ("calibration", "training", "evaluation")}
    np.savez(files["training"], **{key: values[:cut] for key, values in columns.items()})
    np.savez(files["evaluation"], **{key: values[cut:] for key, values in columns.items()})
    np.savez(files["calibration"], input=inputs[:cut][:128])
    return Made(folder / "net.pt2", files)
