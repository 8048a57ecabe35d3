"""How a rank is chosen: by a share of parameters, or by what may be lost."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from app.recipes.methods import RankStep


@dataclass(frozen=True)
class RankRule:
    """What a step asks of ranks; neither attribute: the method's own choice.

    Attributes:
        ratio: rank over the rank at which the factors are as large as the layer.
        lost: share of the squares that may be lost.
        round_to: ranks are multiples of this.
    """

    ratio: float | None = None
    lost: float | None = None
    round_to: int = 1

    @classmethod
    def of(cls, step: RankStep, energy: float | None = None) -> "RankRule":
        """The rule of a step; `energy` where it names none."""
        if step.max_error is not None:
            return cls(None, step.max_error**2, step.round_to)
        energy = energy if step.energy is None and step.rank_ratio is None else step.energy
        return cls(step.rank_ratio, None if energy is None else 1 - energy, step.round_to)

    def rounded(self, rank: int, most: int) -> int:
        """A multiple of `round_to`, upwards so that nothing promised is broken; at least 1, at most `most`."""
        up = self.lost is not None
        whole = (math.ceil if up else round)(rank / self.round_to) * self.round_to
        return max(1, min(whole if whole > 0 else rank, most))

    def rank(self, squares: Tensor, even: float) -> int:
        """The rank of a matrix.

        Args:
            squares: of its singular values, falling.
            even: rank at which its factors are as large as itself.
        """
        if self.lost is not None:
            return kept(squares, self.lost)
        return max(1, int((self.ratio or 1) * even))


def kept(squares: Tensor, lost: float) -> int:
    """How many of the first `squares` are needed so that the rest is at most `lost` of all; at least 1."""
    tails = squares.double().clamp(min=0).flip(0).cumsum(0).flip(0)  # from each on to the end
    return max(1, int((tails > lost * tails[0]).sum()))


def smaller_rank(before: int, each: int, fixed: int) -> int:
    """The largest rank at which ``each * rank + fixed`` weights are fewer than `before`; 0 where there is none."""
    return max(0, (before - fixed - 1) // each)


def relative(error: Tensor, whole: Tensor) -> float:
    """Root of the ratio of two sums of squares, 0 where there is nothing."""
    total = float(torch.as_tensor(whole).double().square().sum())
    return math.sqrt(float(error.double().square().sum()) / total) if total > 0 else 0.0
