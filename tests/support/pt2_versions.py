"""Writes the files in ``tests/engine/formats/pt2_files``: what `torch.export.save` of one PyTorch version makes.

Runs with that version and NumPy alone, in an environment of its own::

    python tests/support/pt2_versions.py tests/engine/formats/pt2_files

Each model gives ``<version>/<model>.pt2`` and ``<version>/<model>.npz`` with the inputs and the outputs that this
version computed, for a batch other than the one it was exported with. Seeds are fixed.
"""

import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim


class Residual(nn.Module):
    """Batch norm, a shortcut, a constant in the code, buffers of several types; a named dynamic batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.body = nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 3)
        self.register_buffer("scale", torch.tensor(0.5, dtype=torch.float64))
        self.register_buffer("rough", torch.linspace(-1, 1, 6).to(torch.bfloat16))
        self.register_buffer("hidden", torch.tensor([True, False, True]), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image - torch.tensor([0.25, -0.5]).reshape(1, 2, 1, 1))
        x = F.relu(x + self.norm(self.body(x)))
        pooled = F.adaptive_avg_pool2d(x, 1).flatten(1) * self.scale.to(torch.float32) + self.rough.float()
        scores = self.head(pooled)
        return torch.where(self.hidden, scores, scores * 2)


class Attention(nn.Module):
    """Tokens and a mask, both dimensions dynamic, an output layer tied to the embedding, a dictionary of results."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(12, 8)
        self.position = nn.Parameter(torch.randn(16, 8))
        self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))
        self.norm = nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)
        self.decoder = nn.Linear(8, 12, bias=False)
        self.decoder.weight = self.embedding.weight

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        batch, tokens = ids.shape
        x = self.embedding(ids) + self.position[:tokens]
        heads = [layer(x).view(batch, tokens, 2, 4).transpose(1, 2) for layer in (self.query, self.key, self.value)]
        attended = F.scaled_dot_product_attention(*heads, attn_mask=mask[:, None, None, :])
        x = self.norm(x + attended.transpose(1, 2).reshape(batch, tokens, 8))
        x = x + self.down(F.gelu(self.up(x)))
        weights = mask.to(x.dtype).unsqueeze(-1)
        return {"logits": self.decoder(x), "pooled": (x * weights).sum(1) / weights.sum(1)}


class Recurrent(nn.Module):
    """A bidirectional LSTM with the state it ends in."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5, batch_first=True, bidirectional=True)
        self.head = nn.Linear(10, 2)

    def forward(self, signal: Tensor) -> tuple[Tensor, Tensor]:
        x, (last, _) = self.lstm(signal)
        return self.head(x), last.transpose(0, 1)


class Small(nn.Module):
    """Hardly anything, exported with a slice of a large tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).softmax(-1)


def _ids(batch: int, tokens: int) -> tuple[Tensor, ...]:
    return torch.randint(0, 12, (batch, tokens)), torch.arange(tokens) < torch.arange(batch)[:, None] + 2


MODELS: dict[str, tuple[Callable[[], nn.Module], Any, Any, Any]] = {
    "residual": (
        Residual,
        lambda: (torch.randn(2, 2, 6, 6),),
        lambda: ({0: Dim("images")},),
        lambda: (torch.randn(5, 2, 6, 6),),
    ),
    "attention": (
        Attention,
        lambda: _ids(2, 6),
        lambda: ({0: Dim.DYNAMIC, 1: Dim.DYNAMIC},) * 2,
        lambda: _ids(3, 9),
    ),
    "recurrent": (
        Recurrent,
        lambda: (torch.randn(2, 7, 4),),
        lambda: ({0: Dim.DYNAMIC},),
        lambda: (torch.randn(4, 7, 4),),
    ),
    "sliced": (
        Small,
        lambda: (torch.randn(250, 16)[:2],),
        lambda: ({0: Dim.DYNAMIC},),
        lambda: (torch.randn(3, 16),),
    ),
}


def make(name: str) -> tuple[nn.Module, Any]:
    """The model in eval mode, its norms with statistics that are not the initial ones, and its exported form."""
    torch.manual_seed(7)
    cls, sample, shapes, _ = MODELS[name]
    module = cls().eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.2)  # type: ignore[union-attr]
            part.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.2)
    exported = torch.export.export(module, sample(), dynamic_shapes=shapes())
    for inner in exported.graph_module.modules():
        for node in inner.graph.nodes if hasattr(inner, "graph") else ():
            for key in ("stack_trace", "torch_fn", "source_fn_stack"):  # paths of this machine, and what fills space
                node.meta.pop(key, None)
    return module, exported


def write(folder: Path) -> None:
    """All models of this version."""
    folder /= torch.__version__.partition("+")[0]
    folder.mkdir(parents=True, exist_ok=True)
    for name in MODELS:
        module, exported = make(name)
        inputs = MODELS[name][3]()
        with torch.no_grad():
            result = module(*inputs)
        outputs = result.values() if isinstance(result, dict) else result if isinstance(result, tuple) else [result]
        path = folder / f"{name}.pt2"
        torch.export.save(exported, path)
        arrays = {f"input_{i}": value.numpy() for i, value in enumerate(inputs)}
        arrays.update({f"output_{i}": value.numpy() for i, value in enumerate(outputs)})
        np.savez_compressed(path.with_suffix(".npz"), **arrays)
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                content = archive.read(info)
                if b"site-packages" in content or b"pt2_versions" in content:
                    raise SystemExit(f"{path}: {info.filename} names files of this machine")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
