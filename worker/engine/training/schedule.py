"""The learning rate over the steps of a training: a short linear warm-up, then half a cosine down to nearly 0.

(Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983, without restarts.) The warm-up gives the optimizer's
second moments time to settle.
"""

import math
from typing import Final

#: Share of the steps that warm up, and the largest number of them.
_WARM: Final = 0.05
_LONGEST: Final = 500
#: What is left of the rate at the end.
_LEFT: Final = 0.01


def rate(step: int, steps: int) -> float:
    """Factor of the learning rate at `step`, counted from 0, of `steps`; in (0, 1]."""
    warm = min(math.ceil(_WARM * steps), _LONGEST)
    if step < warm:
        return (step + 1) / (warm + 1)
    done = (step - warm) / max(steps - warm, 1)
    return _LEFT + (1 - _LEFT) * (1 + math.cos(math.pi * done)) / 2
