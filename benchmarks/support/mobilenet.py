"""A depthwise network of inverted residuals (MobileNetV2, Sandler et al. 2018, https://arxiv.org/abs/1801.04381)."""

import itertools

from torch import Tensor, nn

#: Expansion, channels, blocks and stride of each stage; after a stem of stride 2, so 32x32 -> 16x16 -> 8x8 -> 4x4.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 40, 3, 2), (6, 80, 3, 2), (6, 112, 2, 1))
STEM, HEAD = 32, 640


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU6."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())


class Inverted(nn.Module):
    """1x1 up, 3x3 depthwise, 1x1 down without an activation, and a shortcut where the shapes allow it."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expand = convolution(inputs, width, 1) if expansion > 1 else nn.Identity()
        self.depthwise = convolution(width, width, 3, stride, groups=width)
        self.project = nn.Sequential(nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.shortcut else y


class MobileNet(nn.Module):
    """For 32x32 images."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = convolution(3, STEM, 3, 2)
        widths = (STEM, *(channels for _, channels, _, _ in STAGES))
        blocks = []
        for (before, width), (expansion, _, count, stride) in zip(itertools.pairwise(widths), STAGES, strict=True):
            blocks.append(Inverted(before, width, stride, expansion))
            blocks += [Inverted(width, width, 1, expansion) for _ in range(count - 1)]
        self.blocks = nn.Sequential(*blocks)
        self.head = convolution(widths[-1], HEAD, 1)
        self.fc = nn.Linear(HEAD, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.head(self.blocks(self.stem(x))).mean((2, 3)))
