"""From scores to a choice: which units stay, so that a share of the channels or a budget of arithmetic is met."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from worker.engine.structure.importance import Scores
from worker.engine.structure.model import Family, Keep, Structure

#: Shares of a layer that are told apart.
_STEPS: Final = 1000


@dataclass(frozen=True)
class Chooser:
    """A way from everything to next to nothing, along which channels go by their scores.

    Attributes:
        families: what may be removed from.
        scores: of all units; comparable across families where they compete.
        compete: whether units of all families do, or each family gives the same share.
        round_to: channels left in a family are a multiple of this, where it has more.
    """

    structure: Structure
    families: Sequence[Family]
    scores: Scores
    compete: bool
    round_to: int

    @property
    def channels(self) -> int:
        """In all families."""
        return sum(family.width for family in self.families)

    @property
    def length(self) -> int:
        """Steps of the way."""
        return sum(map(len, self.families)) if self.compete else _STEPS

    def at(self, step: int) -> Keep:
        """The choice after so many steps: that many units of lowest score, or that many thousandths, want to go."""
        keep = self.structure.everything()
        for family in self.families:
            wanted = int((self._places[family.units] >= step).sum()) if self.compete else self._part(family, step)
            order = np.argsort(-self.scores[family.units], kind="stable")
            keep[family.start + order[allowed(family, wanted, self.round_to) :]] = False
        return keep

    @functools.cached_property
    def _places(self) -> NDArray[np.intp]:
        """Of each unit, where it stands in the order in which units go; equal scores go one after the other."""
        units = np.concatenate([np.arange(len(self.scores))[family.units] for family in self.families])
        places = np.full(len(self.scores), len(units), dtype=np.intp)
        places[units[np.argsort(self.scores[units], kind="stable")]] = np.arange(len(units))
        return places

    @staticmethod
    def _part(family: Family, step: int) -> float:
        return len(family) * (1 - step / _STEPS)

    def share(self, ratio: float) -> Keep:
        """The choice that removes a share of the channels, as nearly as rounding lets it."""
        first = self._first(lambda keep: self.structure.removed(keep) >= ratio * self.channels)
        around = [self.at(step) for step in (first - 1, first) if step >= 0]
        return min(around, key=lambda keep: abs(self.structure.removed(keep) - ratio * self.channels))

    def budget(self, macs: float) -> Keep | None:
        """The choice of most units with at most `macs` multiply-accumulates; None where there is none."""
        found = self.at(self._first(lambda keep: self.structure.macs(keep) <= macs))
        return found if self.structure.macs(found) <= macs else None

    def _first(self, enough: Callable[[Keep], bool]) -> int:
        """The first step with `enough`, or the last one; what has been enough stays so."""
        low, high = 0, self.length
        while low < high:
            middle = (low + high) // 2
            if enough(self.at(middle)):
                high = middle
            else:
                low = middle + 1
        return low


def allowed(family: Family, wanted: float, round_to: int) -> int:
    """How many units stay where `wanted` should: the nearest number whose channels are a multiple of `round_to`.

    At least one multiple stays; of families that are no wider any number does, but one.
    """
    size = len(family)
    step = round_to // math.gcd(family.each, round_to)
    if size <= step:
        return min(max(round(wanted), 1), size)
    if wanted > size - (size % step or step) / 2:
        return size
    return min(max(int(wanted / step + 0.5), 1) * step, size)
