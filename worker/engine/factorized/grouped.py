"""Products along one axis by 1x1 convolutions in groups, with the features of any value as its channels."""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, fx

from worker.engine.factorized.replace import Wiring, convolution

_aten = torch.ops.aten
#: Dimensions of what a linear layer reads that a convolution can read too.
READABLE: Final = (2, 3, 4)


def groups_of(blocks: Tensor, dims: int, bias: Tensor | None = None) -> torch.nn.Conv1d | torch.nn.Conv2d:
    """One matrix for each group of channels.

    Args:
        blocks: (groups, outputs, inputs).
        dims: number of dimensions of what the replaced layer reads.
        bias: (groups * outputs,).
    """
    kernel = blocks.reshape(-1, blocks.shape[2], *[1] * max(1, dims - 2))
    return convolution(kernel, bias, groups=len(blocks))


def as_channels(wiring: Wiring, value: fx.Node, axis: int, dims: int, inner: Callable[[fx.Node], fx.Node]) -> fx.Node:
    """`inner` of a value whose features are its axis 1; the result is put back as it was.

    Args:
        axis: of the features, from the end; 1 - dims where they are channels already.
        dims: one of `READABLE`; more for convolutions.
    """
    if axis != -1:
        return inner(value)
    if dims == 2:
        return wiring.call(_aten.squeeze.dim, inner(wiring.call(_aten.unsqueeze.default, value, -1)), -1)
    value = wiring.call(_aten.permute.default, value, [0, dims - 1, *range(1, dims - 1)])
    return wiring.call(_aten.permute.default, inner(value), [0, *range(2, dims), 1])
