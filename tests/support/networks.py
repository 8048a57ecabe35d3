"""Networks of the usual families, written out: what users upload, small enough for tests."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al. 2015, https://arxiv.org/abs/1512.03385)."""

    def __init__(self, channels: int, width: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1 or channels != width:
            self.downsample = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class ResNet18(nn.Module):
    """ResNet-18; `width` 64 is the published one (11.7 M parameters with 1000 classes)."""

    def __init__(self, classes: int = 10, width: int = 64):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        for i in range(1, 5):
            blocks = BasicBlock(widths[i - 1], widths[i], 1 if i == 1 else 2), BasicBlock(widths[i], widths[i])
            setattr(self, f"layer{i}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8 * width, classes)

    def forward(self, image: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class InvertedResidual(nn.Module):
    """Expand, depthwise, squeeze-and-excite, project (Howard et al. 2019, https://arxiv.org/abs/1905.02244)."""

    def __init__(self, channels: int, width: int, stride: int = 1):
        super().__init__()
        hidden = channels * 3
        self.shortcut = stride == 1 and channels == width
        self.expand = nn.Sequential(nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.Hardswish())
        self.depthwise = nn.Sequential(
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()
        )
        self.squeeze, self.excite = nn.Conv2d(hidden, 4, 1), nn.Conv2d(4, hidden, 1)
        self.project = nn.Sequential(nn.Conv2d(hidden, width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(self.expand(x))
        y = y * F.hardsigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        y = self.project(y)
        return x + y if self.shortcut else y


class MobileNet(nn.Module):
    """A few inverted residuals."""

    def __init__(self, classes: int = 10):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.blocks = nn.Sequential(InvertedResidual(8, 8), InvertedResidual(8, 16, 2), InvertedResidual(16, 16))
        self.head = nn.Linear(16, classes)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(image)).mean((2, 3)))


class Transformer(nn.Module):
    """A convolution cuts patches; stock encoder layers, attention with separate weights, two named results."""

    def __init__(self, classes: int = 10, width: int = 16):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.position = nn.Parameter(torch.randn(1, 16, width) * 0.1)
        self.encoder = nn.TransformerEncoderLayer(width, 2, 32, activation="gelu", batch_first=True, norm_first=True)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = self.patch(image).flatten(2).transpose(1, 2) + self.position
        x = self.encoder(x)
        x = x + self.attention(x, x, x)[0]
        heads = [layer(x).reshape(x.shape[0], -1, 2, 8).transpose(1, 2) for layer in (self.query, self.key, self.value)]
        x = x + F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        pooled = self.norm(x).mean(1)
        return {"logits": self.head(pooled), "embedding": pooled}


class Mlp(nn.Module):
    """Linear layers with batch norm between them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(12, 32), nn.BatchNorm1d(32), nn.GELU(), nn.Dropout(0.2), nn.Linear(32, 32), nn.PReLU(32)
        )
        self.head = nn.Linear(32, 4)

    def forward(self, features: Tensor) -> Tensor:
        return self.head(self.body(features))


class Recurrent(nn.Module):
    """Embedding, bidirectional LSTM, GRU, and a tied output layer; returns a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.lstm = nn.LSTM(8, 6, 2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(12, 8, batch_first=True)
        self.decoder = nn.Linear(8, 20, bias=False)
        self.decoder.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        x, _ = self.lstm(self.embedding(tokens))
        x, last = self.gru(x)
        return self.decoder(x), last[0]


@dataclass(frozen=True)
class Example:
    """A network and how to make inputs for it."""

    make: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[Tensor, ...]]


def images(batch: int) -> tuple[Tensor, ...]:
    return (torch.randn(batch, 3, 16, 16),)


ZOO = {
    "resnet18": Example(lambda: ResNet18(width=8), lambda b: (torch.randn(b, 3, 32, 32),)),
    "mobilenet": Example(MobileNet, images),
    "transformer": Example(Transformer, images),
    "mlp": Example(Mlp, lambda b: (torch.randn(b, 12),)),
    "recurrent": Example(Recurrent, lambda b: (torch.randint(0, 20, (b, 5)),)),
}


def make(name: str) -> nn.Module:
    """The network in eval mode, with batch norm statistics that are not the initial ones."""
    torch.manual_seed(0)
    module = ZOO[name].make().eval()
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.2)
    return module


def flat(result: object) -> list[Tensor]:
    """The tensors of whatever a module returns, in order."""
    if isinstance(result, Tensor):
        return [result]
    values = result.values() if isinstance(result, dict) else result
    return [tensor for value in values for tensor in flat(value)]
