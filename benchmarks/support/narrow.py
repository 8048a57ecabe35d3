"""ResNet-18 with a quarter of its channels: for runs that take minutes."""

import itertools

from torch import nn

from benchmarks.support.resnet import Block, ResNet18

_WIDTHS = (16, 16, 32, 64, 128)


class NarrowResNet18(ResNet18):
    """Runs as `ResNet18` does, on small images."""

    def __init__(self, classes: int) -> None:
        nn.Module.__init__(self)
        self.conv1 = nn.Conv2d(3, _WIDTHS[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(_WIDTHS[0])
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.layers = nn.Sequential(
            *(
                nn.Sequential(Block(before, width, 1 if index == 0 else 2), Block(width, width, 1))
                for index, (before, width) in enumerate(itertools.pairwise(_WIDTHS))
            )
        )
        self.fc = nn.Linear(_WIDTHS[-1], classes)
