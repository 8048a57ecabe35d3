"""What the methods that take convolutions apart share: which can be, and the layers that stand in for one."""

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from worker.engine.factorized.replace import CONVOLUTIONS, TRANSPOSED, Replacement, Site, convolution, in_turn

KINDS: Final = (*CONVOLUTIONS, *TRANSPOSED)
#: Relative error above which ranks that nobody asked for are not taken: less than half of the kernel would be left.
MOST_BAYES: Final = 0.5**0.5
#: Why a kernel stays at such ranks, and where variational Bayes takes all of it for noise.
FAR: Final = "variational Bayes keeps less than half of it; give rank_ratio, energy or max_error"
NOISE: Final = "variational Bayes finds nothing in it but noise; give rank_ratio, energy or max_error"


def spatial(site: Site) -> bool:
    """Whether the kernel has more than one position."""
    return site.weight.shape[2:].numel() > 1


def refused(site: Site) -> str | None:
    """Why the convolution stays as it is."""
    if not isinstance(site.layer, (nn.Conv1d, nn.Conv2d)):
        return f"{type(site.layer).__name__} is none of those that are replaced, Conv1d and Conv2d"
    if site.layer.groups > 1:
        return "its channels are in groups, which are small already"
    return None


def in_the_middle(
    first: Tensor | None,
    middle: Mapping[str, tuple[Tensor, Mapping[str, Any]]],
    last: Tensor | None,
    bias: Tensor | None,
    *,
    ranks: tuple[int, ...],
    error: float,
) -> Replacement:
    """A 1x1 convolution, those of `middle`, and a 1x1 convolution.

    Args:
        first: (ranks, inputs); None: nothing stands in front.
        middle: name -> kernel and settings.
        last: (outputs, ranks); None: the middle ends it.
        bias: (outputs,), of whatever comes last.
    """
    sizes = [1] * (next(iter(middle.values()))[0].dim() - 2)
    layers: dict[str, tuple[Tensor, Mapping[str, Any]]] = {}
    if first is not None:
        layers["reduce"] = (first.reshape(*first.shape, *sizes), {})
    layers |= middle
    if last is not None:
        layers["expand"] = (last.reshape(*last.shape, *sizes), {})
    end = list(layers)[-1]
    parts: dict[str, nn.Module | nn.Parameter] = {
        name: convolution(kernel, bias if name == end else None, **settings)
        for name, (kernel, settings) in layers.items()
    }
    return Replacement(parts, in_turn(*parts), ranks, error)


def along(layer: nn.Module, axes: tuple[int, ...], dims: int) -> dict[str, Any]:
    """Stride, padding and dilation of `layer` along some of its axes, with those of a kernel of size 1 elsewhere."""
    settings: dict[str, Any] = {"padding_mode": getattr(layer, "padding_mode", "zeros")}
    for name, neutral in (("stride", 1), ("padding", 0), ("dilation", 1)):
        value: Any = getattr(layer, name)
        pairs = value if isinstance(value, str) else tuple(value[a] if a in axes else neutral for a in range(dims))
        settings[name] = pairs
    return settings


def balanced(*factors: Tensor) -> list[Tensor]:
    """Factors with one component per row, each component's size spread evenly over them: (ranks, ...)."""
    sizes = torch.stack([factor.flatten(1).norm(dim=1) for factor in factors])
    even = sizes.clamp(min=1e-150).log().mean(0).exp() * (sizes.amin(0) > 0)
    scales = even / sizes.clamp(min=1e-150)
    return [
        factor * scale.reshape(-1, *[1] * (factor.dim() - 1)) for factor, scale in zip(factors, scales, strict=True)
    ]
