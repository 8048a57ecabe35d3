"""``factorize.svd``: linear layers and convolutions of size 1 as two of lower rank."""

from typing import Final

from torch import Tensor, nn

from app.recipes import Step
from app.recipes.methods import FactorizeSvd
from worker.engine.errors import InvalidDataset
from worker.engine.factorized.moments import Moments, moments
from worker.engine.factorized.ranks import RankRule, smaller_rank
from worker.engine.factorized.replace import Replacement, Site, convolution, in_turn, linear, settings_of
from worker.engine.factorized.svd import low_rank, spectrum
from worker.engine.methods.factorize import NOT_SMALLER, Verdict, candidates, factorized
from worker.engine.methods.quantize_static import chosen
from worker.engine.state import Compressed, Context

_KINDS: Final = (nn.Linear, nn.Conv1d, nn.Conv2d)
#: Of the squares, kept where the step names nothing: outputs are 20 dB above what is lost.
ENERGY: Final = 0.99
#: Share of the step's time in which samples run.
_SEEING: Final = 0.3


def factorize_svd(compressed: Compressed, step: Step, context: Context) -> Compressed:
    """Replace layers by two of lower rank.

    Raises:
        Unsupported: ``unknown_layer``, ``no_layers``, ``invalid_order``.
        InvalidDataset: ``calibration_required``; ``not_finite`` where a sample leads to NaN or infinity.
    """
    if not isinstance(step, FactorizeSvd):
        raise TypeError(f"{type(step).__name__} is not FactorizeSvd")
    if step.activation_aware and context.calibration is None:
        raise InvalidDataset("calibration_required", "factorize.svd needs calibration samples, or activation_aware off")
    found = [site for site in candidates(compressed, step, _KINDS) if _of_size_1(site)]
    seen: dict[str, Moments] = {}
    if step.activation_aware and context.calibration is not None:
        samples = chosen(context.calibration, step.samples, context.seed)
        able = [site for site in found if _refused(site) is None]
        seen = moments(
            compressed.network, samples, able,
            device=context.device, progress=lambda fraction: context.progress(_SEEING * fraction),
        )  # fmt: skip
    rule = RankRule.of(step, ENERGY)
    return factorized(compressed, step, context, found, lambda site: _judged(site, rule, seen.get(site.path)))


def _of_size_1(site: Site) -> bool:
    return isinstance(site.layer, nn.Linear) or site.weight.shape[2:].numel() == 1


def _refused(site: Site) -> str | None:
    """Why the layer stays as it is."""
    groups = getattr(site.layer, "groups", 1)
    if groups > 1:
        return "its channels are in groups, which are small already"
    return None


def _judged(site: Site, rule: RankRule, seen: Moments | None) -> Verdict:
    refused = _refused(site)
    if refused is not None:
        return refused
    weight = site.weight.flatten(1)
    outputs, inputs = weight.shape
    # With the mean of the inputs known, a bias is added where there was none.
    more = outputs if site.bias is None and seen is not None else 0
    most = smaller_rank(weight.numel(), outputs + inputs, more)
    found = spectrum(weight, seen)
    rank = rule.rank(found.squares, weight.numel() / (outputs + inputs))
    if rank > most:
        return NOT_SMALLER
    parts = low_rank(weight, found, rule.rounded(rank, most), seen)
    bias = site.bias
    if parts.shift is not None:
        bias = parts.shift if bias is None else bias + parts.shift
    return two_layers(site.layer, parts.reduce, parts.expand, bias, parts.error)


def two_layers(layer: nn.Module, reduce: Tensor, expand: Tensor, bias: Tensor | None, error: float) -> Replacement:
    """Two layers of the kind of `layer`, which is linear or a convolution of size 1.

    Args:
        reduce: (rank, inputs).
        expand: (outputs, rank).
        bias: (outputs,).
    """
    wire, ranks = in_turn("reduce", "expand"), (len(reduce),)
    if isinstance(layer, nn.Linear):
        return Replacement({"reduce": linear(reduce), "expand": linear(expand, bias)}, wire, ranks, error)
    sizes = [1] * (layer.weight.dim() - 2)  # type: ignore[operator]
    # Strides and padding belong to the first: the second has fewer positions to compute, and no zeros of its own.
    first = convolution(reduce.reshape(*reduce.shape, *sizes), **settings_of(layer))
    second = convolution(expand.reshape(*expand.shape, *sizes), bias)
    return Replacement({"reduce": first, "expand": second}, wire, ranks, error)
