"""One tiny network with every kind of layer that quantization treats in a way of its own, and samples for it."""

import functools

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worker.engine.data.samples import Samples
from worker.engine.formats.lift import network_of
from worker.engine.network import Network


class Images(nn.Module):
    """Convolution, batch norm, depthwise convolution, addition, pooling, attention over the pixels, layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, stride=2, bias=False)
        self.stem_norm = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.point = nn.Conv2d(16, 16, 1)
        self.norm = nn.LayerNorm(16)
        self.query, self.key, self.value = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.out = nn.Linear(16, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.stem_norm(self.stem(image)))
        x = F.relu(self.point(F.relu(self.depthwise(x))) + x)
        x = F.max_pool2d(x, 2).flatten(2).transpose(1, 2)
        y = self.norm(x)
        scores = torch.matmul(self.query(y), self.key(y).transpose(1, 2)) * 0.25
        x = x + self.out(torch.matmul(torch.softmax(scores, -1), self.value(y)))
        return self.head(F.gelu(x).mean(1))


class Words(nn.Module):
    """Embedding, LSTM, GRU, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 16)
        self.lstm = nn.LSTM(16, 12, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(24, 16, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        x, _ = self.lstm(self.embedding(tokens))
        x, _ = self.gru(x)
        return self.head(F.relu(x).mean(1))


@functools.cache
def images(seed: int = 0) -> Network:
    """`Images` with settled batch norms."""
    torch.manual_seed(seed)
    module = Images().train()
    with torch.no_grad():
        for _ in range(10):
            module(torch.randn(32, 3, 16, 16))
    return network_of(module.eval(), (torch.randn(3, 3, 16, 16),))


@functools.cache
def words(seed: int = 0) -> Network:
    """`Words` as it is initialized."""
    torch.manual_seed(seed)
    return network_of(Words().eval(), (torch.randint(0, 40, (3, 6)),))


def samples(network: Network, count: int, seed: int) -> Samples:
    """Inputs that the network accepts, with labels of five classes."""
    random = np.random.default_rng(seed)
    spec = network.inputs[0]
    size = (count, *(dim for dim in spec.shape[1:] if isinstance(dim, int)))
    values = random.integers(0, 40, size) if spec.dtype == "int64" else random.standard_normal(size).astype(np.float32)
    return Samples({spec.name: values}, random.integers(0, 5, count))
