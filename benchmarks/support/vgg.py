"""VGG-16 with batch norms (Simonyan and Zisserman 2015, https://arxiv.org/abs/1409.1556) for small images: one linear
layer behind the convolutions, as is usual where images are 32 pixels wide."""

from torch import Tensor, nn

#: Channels of each convolution; 0: maximum of every 2 x 2.
_LAYOUT = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)


class Vgg16(nn.Module):
    """`width`: share of the channels."""

    def __init__(self, classes: int, width: float = 1.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for wanted in _LAYOUT:
            if not wanted:
                layers.append(nn.MaxPool2d(2))
                continue
            wide = int(wanted * width)
            layers += [nn.Conv2d(channels, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
            channels = wide
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).flatten(1))
