"""``factorize.structured``: Kronecker, Monarch or Toeplitz matrices in place of dense ones."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from torch import Tensor, nn

from app.recipes import Step
from app.recipes.methods import FactorizeStructured
from worker.engine.factorized import kronecker, monarch, toeplitz
from worker.engine.factorized.grouped import READABLE
from worker.engine.factorized.ranks import kept
from worker.engine.factorized.replace import Replacement, Site
from worker.engine.methods.factorize import NOT_SMALLER, Verdict, candidates, each, factorized, of_size_1
from worker.engine.state import Compressed, Context

_KINDS: Final = (nn.Linear, nn.Conv1d, nn.Conv2d)
#: Relative error of a weight, at most, where the step names neither an error nor a number of terms.
MAX_ERROR: Final = 0.3
#: Blocks a side of a Toeplitz matrix: 9 products in place of 16.
_TOEPLITZ_BLOCKS: Final = 4


def factorize_structured(compressed: Compressed, step: Step, context: Context) -> Compressed:
    """Replace layers by products with a structured matrix.

    Raises:
        Unsupported: ``unknown_layer``, ``no_layers``, ``invalid_order``.
    """
    if not isinstance(step, FactorizeStructured):
        raise TypeError(f"{type(step).__name__} is not FactorizeStructured")
    found = candidates(compressed, step, _KINDS, of_size_1)
    return factorized(compressed, step, context, found, each(lambda site, _: _judged(site, step), context))


@dataclass(frozen=True)
class _Place:
    """Where a layer's features are: the axis, from the end, of what it reads, and how many dimensions that has."""

    axis: int
    dims: int


def _judged(site: Site, step: FactorizeStructured) -> Verdict:
    place = _place(site)
    if isinstance(place, str):
        return place
    return _STRUCTURES[step.structure](site, step, place)


def _place(site: Site) -> _Place | str:
    """Where the layer's features are, or why it stays as it is."""
    layer = site.layer
    if len(site.dims) > 1:
        return "it is called with values of different numbers of dimensions"
    (dims,) = site.dims
    if isinstance(layer, nn.Linear):
        return _Place(-1, dims) if dims in READABLE else f"it reads values of {dims} dimensions, not 2, 3 or 4"
    if not isinstance(layer, (nn.Conv1d, nn.Conv2d)) or layer.groups > 1:
        return "its channels are in groups, which are small already"
    if set(layer.stride) != {1} or any(layer._reversed_padding_repeated_twice):
        return "it has a stride or padding"
    if dims != layer.weight.dim():
        return "it reads single samples, without a batch"
    return _Place(1 - dims, dims)


def divisor(number: int, wanted: float) -> int:
    """The divisor of `number` that is nearest to `wanted`, as a ratio."""
    return min(
        (each for each in range(1, number + 1) if number % each == 0),
        key=lambda each: max(each / wanted, wanted / each),
    )


def _limit(step: FactorizeStructured) -> float:
    """The largest relative error that is taken."""
    return step.max_error if step.max_error is not None else MAX_ERROR if step.terms is None else 1.0


def _count(squares: Tensor, step: FactorizeStructured) -> int | None:
    """How many terms: as the step says, or the fewest that keep its error; None where those that it says do not."""
    wanted = kept(squares, _limit(step) ** 2)
    return wanted if step.terms is None else None if wanted > step.terms else min(step.terms, len(squares))


def _kronecker(site: Site, step: FactorizeStructured, place: _Place) -> Verdict:
    weight = site.weight.flatten(1)
    outputs, inputs = weight.shape
    cuts = divisor(outputs, step.blocks or outputs**0.5), divisor(inputs, step.blocks or inputs**0.5)
    values = kronecker.values(weight, cuts)
    terms = _count(values.squares, step)
    # Few numbers are used many times: the products are what has to become fewer.
    each = inputs * (outputs // cuts[0]) + cuts[1] * outputs
    if terms is None or terms * each >= weight.numel():
        return NOT_SMALLER
    return kronecker.replacement(kronecker.kronecker(weight, cuts, terms, values), site.bias, place.axis, place.dims)


def _monarch(site: Site, step: FactorizeStructured, place: _Place) -> Verdict:
    weight = site.weight.flatten(1)
    outputs, inputs = weight.shape
    cuts = divisor(outputs, step.blocks or outputs**0.5), divisor(inputs, step.blocks or inputs**0.5)
    rank = _count(monarch.squares(weight, cuts), step)
    if rank is None or rank * (cuts[0] * inputs + cuts[1] * outputs) >= weight.numel():
        return NOT_SMALLER
    return monarch.replacement(monarch.monarch(weight, cuts, rank), site.bias, place.axis, place.dims)


def _toeplitz(site: Site, step: FactorizeStructured, place: _Place) -> Replacement | str:
    weight = site.weight.flatten(1)
    both = weight.shape[0] & -weight.shape[0], weight.shape[1] & -weight.shape[1]  # powers of two that divide them
    blocks = step.blocks or _TOEPLITZ_BLOCKS
    count = min(*both, 1 << (blocks.bit_length() - 1))
    if count < 2:
        return "one of its sides is odd: no two halves"
    found = toeplitz.toeplitz(weight, count)
    if found.error > _limit(step):
        return NOT_SMALLER
    return toeplitz.replacement(found, site.bias, place.axis, place.dims)


_STRUCTURES: Final[Mapping[str, Callable[[Site, FactorizeStructured, _Place], Verdict]]] = {
    "kronecker": _kronecker,
    "monarch": _monarch,
    "toeplitz": _toeplitz,
}
