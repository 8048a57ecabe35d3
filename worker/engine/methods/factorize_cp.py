"""``factorize.cp``: convolutions as 1x1, depthwise ones along each axis, and 1x1."""

from torch import Tensor

from app.recipes import Step
from app.recipes.methods import FactorizeCp
from worker.engine.factorized.cp import Als, Cp, TooLong, cp, smallest
from worker.engine.factorized.ranks import RankRule, smaller_rank
from worker.engine.factorized.replace import Replacement, Site
from worker.engine.factorized.tucker import noise_ranks
from worker.engine.methods.factorize import NOT_SMALLER, Progress, Verdict, candidates, each, factorized
from worker.engine.methods.factorize_convolution import (
    FAR,
    KINDS,
    MOST_BAYES,
    NOISE,
    along,
    balanced,
    in_the_middle,
    refused,
    spatial,
)
from worker.engine.state import Compressed, Context

#: What the depthwise convolutions along the first and second axis are called.
_NAMES = ("vertical", "horizontal")
#: Why a kernel stays for which least squares are too much work.
TOO_LONG = "its least squares would take too long; give a smaller rank or fewer iterations, or take factorize.tucker"


def factorize_cp(compressed: Compressed, step: Step, context: Context) -> Compressed:
    """Replace convolutions whose kernel is larger than 1.

    Raises:
        Unsupported: ``unknown_layer``, ``no_layers``, ``invalid_order``.
    """
    if not isinstance(step, FactorizeCp):
        raise TypeError(f"{type(step).__name__} is not FactorizeCp")
    found = candidates(compressed, step, KINDS, spatial)

    def judge(site: Site, progress: Progress) -> Verdict:
        try:
            return _judged(site, step, Als(context.seed, step.restarts, step.iterations, progress))
        except TooLong:
            return TOO_LONG

    return factorized(compressed, step, context, found, each(judge, context))


def _judged(site: Site, step: FactorizeCp, als: Als) -> Verdict:
    why = refused(site)
    if why is not None:
        return why
    kernel, rule = site.weight, RankRule.of(step)
    axes = tuple(axis for axis, size in enumerate(kernel.shape[2:]) if size > 1)
    tensor = kernel.reshape(*kernel.shape[:2], *(kernel.shape[2 + axis] for axis in axes))
    each = sum(tensor.shape)
    most = smaller_rank(kernel.numel(), each, 0)
    if most < 1:
        return NOT_SMALLER
    if rule.lost is not None:
        found = smallest(tensor, rule.lost**0.5, most, als)
        return NOT_SMALLER if found is None else _replacement(site, found, axes)
    # A sum of outer products needs at least as many as either unfolding has dimensions (Kolda and Bader 2009, 3.1).
    wanted = step.ranks or (max(noise_ranks(kernel)) if rule.ratio is None else int(rule.ratio * kernel.numel() / each))
    if wanted < 1:
        return NOISE if rule.ratio is None else NOT_SMALLER
    if wanted > most:
        return NOT_SMALLER
    found = cp(tensor, wanted if step.ranks else rule.rounded(wanted, most), als)
    if found is None:
        return "least squares came to no stable end; take another rank, more restarts or iterations"
    if step.ranks is None and rule.ratio is None and found.error > MOST_BAYES:
        return FAR
    return _replacement(site, found, axes)


def _replacement(site: Site, found: Cp, axes: tuple[int, ...]) -> Replacement:
    expand, reduce, *middle = balanced(*(factor.mT for factor in found.factors))
    dims = len(site.weight.shape) - 2
    kernels: dict[str, tuple[Tensor, dict[str, object]]] = {}
    for axis, kernel in zip(axes, middle, strict=True):
        shape = [len(kernel), 1, *(kernel.shape[1] if at == axis else 1 for at in range(dims))]
        # An axis of size 1 still has a stride and padding: the first kernel takes them along.
        own = (axis, *(at for at in range(dims) if at not in axes)) if axis == axes[0] else (axis,)
        kernels[_NAMES[axis]] = (kernel.reshape(shape), {**along(site.layer, own, dims), "groups": len(kernel)})
    return in_the_middle(reduce, kernels, expand.mT, site.bias, ranks=(len(reduce),), error=found.error)
