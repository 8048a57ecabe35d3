"""Networks of the shapes that torch-pruning's own tests are about (github.com/VainF/Torch-Pruning, folder tests),
written anew: all that need no torchvision, and what its list of torchvision models leaves out as failing or asks users
to name parameters of.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Shape = tuple[int, ...]


def _pair(inputs: int, middle: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, middle, 1), nn.BatchNorm2d(middle), nn.GELU(), nn.Conv2d(middle, outputs, 1),
        nn.BatchNorm2d(outputs),
    )  # fmt: skip


class ConcatSplit(nn.Module):
    """test_concat_split: halves go different ways and meet others."""

    shapes: tuple[Shape, ...] = ((8, 7, 7),)

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.join = _pair(8, 8, 16), _pair(8, 8, 8), nn.Conv2d(16, 8, 1)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, second = torch.split(self.one(x), (8, 8), 1)
        return self.head(self.join(torch.cat([first, self.two(x)], 1)) + second)


class CascadedConcat(nn.Module):
    """test_cascaded_concat: what was joined is joined again."""

    shapes: tuple[Shape, ...] = ((8, 7, 7),)

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([_pair(8, 8, 8), _pair(8, 16, 16), nn.Conv2d(8, 24, 1), nn.Conv2d(8, 48, 1)])
        self.head = nn.Conv2d(96, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        joined = self.parts[0](x)
        for part in list(self.parts)[1:]:
            joined = torch.cat([joined, part(x)], 1)
        return self.head(joined)


class Reshape(nn.Module):
    """test_reshape: features of a linear layer become channels by positions."""

    shapes: tuple[Shape, ...] = ((32,),)

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 16 * 16)
        self.up, self.more = nn.ConvTranspose2d(16, 12, 4, 2, 1), nn.ConvTranspose2d(12, 8, 4, 2, 1)
        self.head = nn.Linear(8 * 256, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.linear(x)).view(-1, 16, 4, 4)
        return self.head(torch.flatten(F.relu(self.more(F.relu(self.up(x)))), 1))


class Split(nn.Module):
    """test_split: one layer reads two of three parts."""

    shapes: tuple[Shape, ...] = ((8, 7, 7),)

    def __init__(self) -> None:
        super().__init__()
        self.body, self.twice, self.once = _pair(8, 8, 32), nn.Conv2d(8, 8, 1), nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        one, two, three = torch.split(self.body(x), [8, 8, 16], 1)
        return self.twice(one), self.twice(two), self.once(three)


class ManyInputs(nn.Module):
    """test_multiple_inputs_and_outputs, with a layer behind: what leaves the network stays."""

    shapes: tuple[Shape, ...] = ((16,), (12,))

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.both, self.head = (
            nn.Linear(16, 24), nn.Linear(12, 24), nn.Linear(48, 32), nn.Linear(32, 5)
        )  # fmt: skip

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        one, two = F.relu(self.one(x)), F.relu(self.two(y))
        return one, self.head(F.relu(self.both(torch.cat([one, two], 1))))


class OtherConcat(nn.Module):
    """test_non_feature_dim_cat: joined along the height."""

    shapes: tuple[Shape, ...] = ((8, 7, 7),)

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = _pair(8, 8, 8), _pair(8, 8, 8)
        self.both, self.head = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        both = self.both(torch.cat([self.one(x), self.two(x)], 2))
        return self.head(torch.split(both, [7, 7], 2)[0])


class SingleChannel(nn.Module):
    """test_single_channel_output."""

    shapes: tuple[Shape, ...] = ((3, 16, 16),)

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.last = (
            nn.Conv2d(3, 16, 3, 1, 1), nn.Conv2d(16, 32, 2, 2), nn.Conv2d(32, 1, 3, 1, 1)
        )  # fmt: skip
        self.norms = nn.ModuleList([nn.BatchNorm2d(16), nn.BatchNorm2d(32), nn.BatchNorm2d(1)])

    def forward(self, x: Tensor) -> Tensor:
        for layer, norm in zip((self.one, self.two, self.last), self.norms, strict=True):
            x = F.relu(norm(layer(x)))
        return x


class WideDeep(nn.Module):
    """test_concat: a deep path beside a wide one."""

    shapes: tuple[Shape, ...] = ((32,),)

    def __init__(self) -> None:
        super().__init__()
        self.deep = nn.Sequential(
            nn.Linear(32, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 16), nn.BatchNorm1d(16),
            nn.ReLU(), nn.Linear(16, 1),
        )  # fmt: skip
        self.wide, self.head = nn.Linear(32, 4), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(x.shape[0], -1)
        return torch.sigmoid(self.head(torch.concat([self.wide(x), self.deep(x)], -1)))


class OwnParameter(nn.Module):
    """test_customized_layer, test_unwrapped_parameters: a scale of its own, as the layer scale of ConvNeXt."""

    shapes: tuple[Shape, ...] = ((3, 8, 8),)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 16, 3, 1, 1), nn.Conv2d(16, 16, 7, 1, 3, groups=16)
        self.norm, self.up, self.down = nn.LayerNorm(16), nn.Linear(16, 64), nn.Linear(64, 16)
        self.scale, self.shift = nn.Parameter(torch.rand(16, 1, 1)), nn.Parameter(torch.rand(1, 16, 1, 1))
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x) * self.scale + self.shift
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.down(F.gelu(self.up(y))).permute(0, 3, 1, 2)
        return self.head((x + self.scale * y).mean((2, 3)))


class Unused(nn.Module):
    """test_unused_parameters: a layer that nothing calls."""

    shapes: tuple[Shape, ...] = ((3, 8, 8),)

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.never = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 8, 3), nn.Conv2d(16, 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(F.relu(self.one(x)))


PEERS: dict[str, Callable[[], nn.Module]] = {
    kind.__name__: kind
    for kind in (
        ConcatSplit, CascadedConcat, Reshape, Split, ManyInputs, OtherConcat, SingleChannel, WideDeep, OwnParameter,
        Unused,
    )
}  # fmt: skip
#: Of the torchvision models in that list: the same architectures in transformers or written out (`ARCHITECTURES`).
ELSEWHERE = (
    "vit", "convnextv2", "densenet", "inception", "mobilenet", "resnet18", "vgg", "shufflenet", "swin", "segformer",
)  # fmt: skip
