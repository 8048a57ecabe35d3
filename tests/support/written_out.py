"""Networks of families that `networks` does not have, written out as users write them; tiny."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.networks import BasicBlock


class Plain(nn.Module):
    """Convolutions, pooling and linear layers, one after another, as in LeNet."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(width, 2 * width, 5), nn.Tanh()
        )
        self.pool = nn.AvgPool2d(2)
        self.classifier = nn.Sequential(nn.Linear(2 * width * 25, 4 * width), nn.ReLU(), nn.Linear(4 * width, 10))

    def forward(self, image: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(image)).flatten(1))


class Vgg(nn.Module):
    """Stages of 3x3 convolutions with batch norm; pooled to 2x2 before the classifier."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for wide in (width, 2 * width, 4 * width):
            for _ in range(2):
                layers += [nn.Conv2d(channels, wide, 3, padding=1), nn.BatchNorm2d(wide), nn.ReLU(inplace=True)]
                channels = wide
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((2, 2))
        self.classifier = nn.Sequential(nn.Linear(16 * width, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 10))

    def forward(self, image: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(image)), 1))


class DenseNet(nn.Module):
    """Each layer reads all before it; norm and activation come in front of the convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(8 + 4 * i), nn.ReLU(), nn.Conv2d(8 + 4 * i, 4, 3, padding=1, bias=False))
            for i in range(4)
        )
        self.transition = nn.Sequential(nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 12, 1), nn.AvgPool2d(2))
        self.norm, self.head = nn.BatchNorm2d(12), nn.Linear(12, 10)

    def forward(self, image: Tensor) -> Tensor:
        features = [self.stem(image)]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        x = F.relu(self.norm(self.transition(torch.cat(features, 1))))
        return self.head(F.adaptive_avg_pool2d(x, (1, 1)).flatten(1))


class ShuffleUnit(nn.Module):
    """Half of the channels pass, the others go through depthwise layers; then both are shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            nn.Conv2d(half, half, 1, groups=2), nn.BatchNorm2d(half), nn.ReLU(),
            nn.Conv2d(half, half, 3, 1, 1, groups=half), nn.BatchNorm2d(half), nn.Conv2d(half, half, 1), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, dim=1)
        x = torch.cat((kept, self.branch(changed)), dim=1)
        batch, channels, height, width = x.size()
        return (
            x.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous().view(batch, -1, height, width)
        )


class ShuffleNet(nn.Module):
    """Grouped convolutions with shuffled channels (Ma et al. 2018, https://arxiv.org/abs/1807.11164)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 16, 3, 2, 1), nn.Linear(16, 10)
        self.units = nn.Sequential(ShuffleUnit(16), ShuffleUnit(16))

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.units(F.max_pool2d(self.stem(image), 3, 2, 1)).mean([2, 3]))


class UNet(nn.Module):
    """Down, up again by both kinds of upsampling, shortcuts across; a mask, and a coarse one for training."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.one = self._block(3, width)
        self.two = self._block(width, 2 * width)
        self.three = self._block(2 * width, 2 * width)
        self.up = nn.ConvTranspose2d(2 * width, 2 * width, 2, 2)
        self.four = self._block(4 * width, width)
        self.five = self._block(2 * width, width)
        self.coarse, self.fine = nn.Conv2d(width, 2, 1), nn.Conv2d(width, 2, 1)

    @staticmethod
    def _block(channels: int, width: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.InstanceNorm2d(width), nn.LeakyReLU(0.2))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        one = self.one(image)
        two = self.two(F.max_pool2d(one, 2))
        x = self.up(self.three(F.max_pool2d(two, 2)))
        x = self.four(torch.cat([x, two], 1))
        coarse = torch.sigmoid(self.coarse(x))
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = self.five(torch.cat([x, one], 1))
        return torch.sigmoid(self.fine(x)), F.interpolate(coarse, size=image.shape[2:], mode="nearest")


class Lstm(nn.Module):
    """Tokens through a bidirectional LSTM; its last hidden states decide."""

    def __init__(self, words: int = 30, width: int = 16, hidden: int = 12) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width, padding_idx=0)
        self.lstm = nn.LSTM(width, hidden, 2, batch_first=True, bidirectional=True, dropout=0.1)
        self.head = nn.Linear(2 * hidden, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(self.embedding(tokens))
        return self.head(torch.cat([hidden[-2], hidden[-1]], dim=1))


class Gru(nn.Module):
    """A signal through a GRU that starts from an input; every step and the last state are results."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(6, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, signal: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        steps, last = self.gru(signal, state.unsqueeze(0))
        return self.head(steps), last.squeeze(0)


class Tabular(nn.Module):
    """Numbers and categories of a table."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(rows, 4) for rows in (5, 12, 30))
        self.norm = nn.BatchNorm1d(7)
        self.body = nn.Sequential(
            nn.Linear(19, 32), nn.ELU(), nn.BatchNorm1d(32), nn.Dropout(0.1), nn.Linear(32, 16), nn.SELU()
        )
        self.head = nn.Linear(16, 1)

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        embedded = [layer(categories[:, i]) for i, layer in enumerate(self.embeddings)]
        return self.head(self.body(torch.cat([self.norm(numbers), *embedded], dim=1))).squeeze(1)


class TwoTasks(nn.Module):
    """A shared trunk and two heads, named."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.SiLU(), BasicBlock(8, 16, 2))
        self.kind = nn.Sequential(nn.Linear(16, 16), nn.Mish(), nn.Linear(16, 5))
        self.box = nn.Sequential(nn.Linear(16, 4), nn.Softplus())

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = self.trunk(image).amax((2, 3))
        return {"kind": F.log_softmax(self.kind(x), -1), "box": self.box(x)}


class MaskedEncoder(nn.Module):
    """PyTorch's own encoder layer and multi-head attention, with a mask of what is padding."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, sequence: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        x = self.encoder(sequence, src_key_padding_mask=padding)
        y, weights = self.attention(x, x, x, key_padding_mask=padding)
        return self.head(x + y), weights


class Causal(nn.Module):
    """A decoder block by scaled_dot_product_attention, root-mean-square norm and rotary positions."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, width)
        self.norm, self.norm2 = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.gate, self.up, self.down = nn.Linear(width, 32), nn.Linear(width, 32), nn.Linear(32, width)
        self.register_buffer("frequencies", 1.0 / 100 ** (torch.arange(0, 4) / 4), persistent=False)

    def rotate(self, x: Tensor) -> Tensor:
        angles = torch.arange(x.shape[2], device=x.device)[:, None] * self.frequencies
        cos, sin = torch.cos(angles), torch.sin(angles)
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)

    def forward(self, tokens: Tensor, valid: Tensor) -> Tensor:
        x = self.embedding(tokens)
        q, k, v = (p.unflatten(-1, (2, 8)).transpose(1, 2) for p in self.qkv(self.norm(x)).chunk(3, -1))
        length = tokens.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()
        mask = causal & valid[:, None, None, :]
        y = F.scaled_dot_product_attention(self.rotate(q), self.rotate(k), v, attn_mask=mask)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        y = self.norm2(x)
        x = x + self.down(F.silu(self.gate(y)) * self.up(y))
        return F.linear(x, self.embedding.weight)


class Inception(nn.Module):
    """Branches of several reaches, one of them an average of neighbours that leaves the padding out."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, 2)
        self.b = nn.Sequential(
            nn.Conv2d(12, 4, 1), nn.Conv2d(4, 6, (1, 7), padding=(0, 3)), nn.Conv2d(6, 6, (7, 1), padding=(3, 0))
        )
        self.a, self.c, self.d = nn.Conv2d(12, 6, 1), nn.Conv2d(12, 6, 1), nn.Conv2d(12, 6, 3, 2)
        self.head = nn.Linear(30, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.stem(image))
        pooled = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        y = torch.cat([self.a(x), self.b(x), self.c(pooled)], 1)
        z = torch.cat([F.max_pool2d(x, 3, 2), F.relu6(self.d(x))], 1)
        y = F.avg_pool2d(F.relu(y), 3, 2, ceil_mode=True)
        return self.head(torch.cat([y[:, 6:], z], 1).mean((2, 3)))


class WaveNet(nn.Module):
    """Dilated convolutions that look back only, gated, with residuals and skips."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(2, 8, 1)
        self.dilated = nn.ModuleList(nn.Conv1d(8, 16, 2, dilation=2**i) for i in range(3))
        self.mix = nn.ModuleList(nn.Conv1d(8, 16, 1) for _ in range(3))
        self.last = nn.Sequential(nn.ReLU(), nn.Conv1d(8, 8, 1), nn.ReLU(), nn.Conv1d(8, 4, 1))

    def forward(self, signal: Tensor) -> Tensor:
        x, skips = self.first(signal), []
        for dilated, mix in zip(self.dilated, self.mix, strict=True):
            value, gate = dilated(F.pad(x, (dilated.dilation[0], 0))).split(8, 1)
            residual, skip = mix(torch.tanh(value) * torch.sigmoid(gate)).chunk(2, 1)
            x = x + residual
            skips.append(skip)
        return self.last(torch.stack(skips).sum(0))


class Crnn(nn.Module):
    """Lines of writing: convolutions, columns as steps of an LSTM, scores for each column."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d((2, 1)),
        )  # fmt: skip
        self.lstm = nn.LSTM(48, 12, bidirectional=True)
        self.head = nn.Linear(24, 11)

    def forward(self, image: Tensor) -> Tensor:
        x = self.conv(image)  # (batch, 12, 4, columns)
        x = x.permute(3, 0, 1, 2).flatten(2)
        return self.head(self.lstm(x)[0]).log_softmax(2)


class Video(nn.Module):
    """Three-dimensional convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv3d(3, 6, 3, padding=1), nn.BatchNorm3d(6), nn.ReLU(), nn.MaxPool3d((1, 2, 2)),
            nn.Conv3d(6, 8, (3, 3, 3), stride=(1, 2, 2), padding=1), nn.Hardswish(), nn.AvgPool3d(2),
        )  # fmt: skip
        self.head = nn.Linear(8, 6)

    def forward(self, clip: Tensor) -> Tensor:
        return self.head(self.features(clip).mean((2, 3, 4)))
