"""``factorize.svd``: linear layers and convolutions of size 1 as two of lower rank."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from torch import Tensor, nn

from app.recipes import Step
from app.recipes.methods import FactorizeSvd
from worker.engine.data.samples import chosen
from worker.engine.errors import InvalidDataset
from worker.engine.factorized.moments import Moments, moments
from worker.engine.factorized.ranks import RankRule, smaller_rank
from worker.engine.factorized.replace import Replacement, Site, convolution, in_turn, linear, settings_of
from worker.engine.factorized.svd import low_rank, spectrum
from worker.engine.methods.factorize import NOT_SMALLER, Verdict, candidates, each, factorized, of_size_1
from worker.engine.state import Compressed, Context

_KINDS: Final = (nn.Linear, nn.Conv1d, nn.Conv2d)
#: Of the squares, kept where the step names nothing: outputs are 20 dB above what is lost.
ENERGY: Final = 0.99


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
    found = candidates(compressed, step, _KINDS, of_size_1)
    rule = RankRule.of(step, ENERGY)
    if not step.activation_aware or context.calibration is None:
        return factorized(compressed, step, context, found, each(lambda site, _: _judged(site, rule, None), context))
    samples = chosen(context.calibration, step.samples, context.seed)

    def judge(found: Sequence[Site]) -> Iterator[tuple[Site, Verdict]]:
        whole = [site for site in found if not _grouped(site)]
        seen = moments(compressed.network, samples, whole, device=context.device, progress=context.progress)
        yield from ((site, _judged(site, rule, None)) for site in found if _grouped(site))
        yield from ((site, _judged(site, rule, known)) for site, known in seen)

    return factorized(compressed, step, context, found, judge)


def _grouped(site: Site) -> bool:
    return int(getattr(site.layer, "groups", 1)) > 1


def _judged(site: Site, rule: RankRule, seen: Moments | None) -> Verdict:
    if _grouped(site):
        return "its channels are in groups, which are small already"
    weight = site.weight.flatten(1)
    outputs, inputs = weight.shape
    # With the mean of the inputs known, a bias is added where there was none.
    more = outputs if site.bias is None and seen is not None else 0
    most = smaller_rank(weight.numel(), outputs + inputs, more)
    values = spectrum(weight, seen)
    rank = rule.rank(values.squares, weight.numel() / (outputs + inputs))
    if rank > most:
        return NOT_SMALLER
    parts = low_rank(weight, values, rule.rounded(rank, most), seen)
    bias = site.bias
    if parts.shift is not None:
        bias = parts.shift if bias is None else bias + parts.shift
    found = two_layers(site.layer, parts.reduce, parts.expand, bias, parts.error)
    if seen is None or seen.covariance is not None:
        return found
    return replace(found, remark=f"the weight alone decided about its rank, because {seen.unknown}")


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
