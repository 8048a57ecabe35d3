"""How much is pruned when, while a network trains."""

from typing import Final

#: Share of a training in which weights go; in the rest the others adapt.
PRUNING: Final = 0.6
#: How many times weights go on the way.
TIMES: Final = 16


def cubic(share: float, final: float) -> float:
    """The sparsity after `share` (0..1) of the pruning (Zhu and Gupta 2017, https://arxiv.org/abs/1710.01878, eq. 1).

    ``s = s_f (1 - (1 - share)^3)``: much at first, when much is redundant, and ever less towards the end.
    """
    return final * (1.0 - (1.0 - min(max(share, 0.0), 1.0)) ** 3)


def due(share: float) -> int:
    """How many of the `TIMES` are over after `share` (0..1) of a training."""
    return TIMES if share >= PRUNING else int(share / PRUNING * TIMES)


def gradual(times: int, final: float) -> float:
    """The sparsity after so many `times`: `final` from the last one on."""
    return final if times >= TIMES else cubic(times / TIMES, final)


def at_once(times: int, final: float) -> float:
    """The sparsity after so many `times` where all goes at the last one."""
    return final if times >= TIMES else 0.0
