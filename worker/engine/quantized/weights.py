"""Integer weights: per-channel scales that minimize the squared error, not the largest weight divided by 127.

For a channel with weights w the error of clipping at a is ``n a^2 / (12 L^2) + sum_{|w_i| > a} (|w_i| - a)^2``
(rounding noise inside, clipping outside, L = 127). It is convex, and between two neighbouring magnitudes its minimum
is ``a = sum_{|w_i| > a} |w_i| / (n / (12 L^2) + j)``, j the number of clipped weights: so the largest few magnitudes
are enough to find it exactly. Channels with few weights and coarse grids have no uniform noise; there the scales are
tried out.

x86 processors without VNNI multiply uint8 by int8 with ``vpmaddubsw``, which adds two neighbouring products in 16 bits
and saturates. ``255 (|q_k| + |q_k+1|) <= 32767`` holds for every pair of neighbours along the input channels where the
scale is at least ``max_k (|w_k| + |w_k+1|) / 126``: about 2 dB, where a grid of 7 bits costs 6.
"""

from typing import Final, Literal

import torch
from torch import Tensor

from worker.engine.quantized.affine import SMALLEST_SCALE
from worker.engine.quantized.form import Weight

Granularity = Literal["channel", "tensor"]

#: Channels smaller than this try scales out.
_SMALL: Final = 192
_TRIED: Final = 96
#: Numbers that are tried at a time.
_AT_ONCE: Final = 1 << 20
#: Grids with fewer integers to a side round too coarsely for uniform noise.
_FINE: Final = 127
#: Largest sum of two neighbouring magnitudes in steps: 128 fits, and rounding both up adds less than two.
_PAIR: Final = 126
#: How many of the largest magnitudes may be clipped.
_CLIPPED: Final = 64


@torch.no_grad()
def quantize_weight(
    weight: Tensor,
    bias: Tensor | None,
    *,
    bits: int = 8,
    granularity: Granularity = "channel",
    input_scale: float = 0.0,
    avoid_saturation: bool = False,
    scale: Tensor | None = None,
) -> Weight:
    """Quantize a layer's weight around zero.

    Args:
        weight: float, (channels, ...).
        bias: float, (channels,), kept as it is.
        input_scale: of the layer's integer input, 0 where it has none; the scales are kept large enough for the
            bias to fit in int32.
        avoid_saturation: keep neighbouring weights small enough for sums of two products in 16 bits.
        scale: (channels,), or (1,) for one per tensor: take these, made larger where the above asks for it, in place
            of those of least error.
    """
    weight = weight.detach().float()
    rows = weight.reshape(1, -1) if granularity == "tensor" else weight.reshape(weight.shape[0], -1)
    top = 2 ** (bits - 1) - 1
    scale = best_scale(rows, top) if scale is None else scale.float().clamp(min=SMALLEST_SCALE)
    if avoid_saturation:
        scale = torch.maximum(scale, least_scale(weight, bits, granularity))
    if bias is not None and input_scale > 0:
        least = bias.detach().float().abs() / (input_scale * 2.0**30)
        scale = torch.maximum(scale, least if granularity == "channel" else least.max())
    values = (rows / scale[:, None]).round_().clamp_(-top, top).to(torch.int8).reshape(weight.shape)
    return Weight(values, scale, None if bias is None else bias.detach().float().clone(), bits)


def least_scale(weight: Tensor, bits: int, granularity: Granularity) -> Tensor:
    """The smallest scales with which no sum of two neighbouring products leaves 16 bits, (channels,) or (1,).

    Grids that are coarser than 8 bits cannot leave them.
    """
    if 2 ** (bits - 1) - 1 < _FINE:
        return weight.new_zeros(1)
    least = neighbours(weight) / _PAIR
    return least if granularity == "channel" else least.amax(0, keepdim=True)


def neighbours(weight: Tensor) -> Tensor:
    """The largest sum of two neighbouring magnitudes of each channel, (channels,).

    Neighbours are next to each other in the order in which kernels read a weight: input channels innermost.
    """
    magnitudes = weight.abs().movedim(1, -1).reshape(weight.shape[0], -1) if weight.dim() > 1 else weight.abs()[:, None]
    if magnitudes.shape[1] == 1:
        return magnitudes[:, 0]
    return (magnitudes[:, 1:] + magnitudes[:, :-1]).amax(1)


def best_scale(rows: Tensor, top: int) -> Tensor:
    """Scale of least squared error for each row, (rows,); `rows` is (rows, n), integers are -top..top."""
    magnitudes = rows.abs()
    largest = magnitudes.amax(1)
    uniform = rows.shape[1] >= _SMALL and top >= _FINE
    clip = _solved(magnitudes, top) if uniform else _tried(rows, largest, top)
    scale = torch.where(largest > 0, clip / top, torch.ones_like(largest))
    return torch.clamp(scale, min=SMALLEST_SCALE)


def _solved(magnitudes: Tensor, top: int) -> Tensor:
    """The minimum of the convex error, from the largest magnitudes; (rows,)."""
    n = magnitudes.shape[1]
    largest = torch.topk(magnitudes, min(_CLIPPED + 1, n), dim=1).values.double()  # (rows, k + 1), descending
    above, below = largest[:, :-1], largest[:, 1:]
    noise = n / (12 * top**2)
    count = torch.arange(1, above.shape[1] + 1, dtype=torch.float64, device=magnitudes.device)
    first, second = above.cumsum(1), above.square().cumsum(1)
    clip = torch.minimum(torch.maximum(first / (noise + count), below), above)
    error = noise * clip**2 + second - 2 * clip * first + count * clip**2
    best = error.argmin(1, keepdim=True)
    return clip.gather(1, best).squeeze(1).float()


def _tried(rows: Tensor, largest: Tensor, top: int) -> Tensor:
    """The best of a grid of clipping values, by the error itself; (rows,)."""
    shares = torch.linspace(0.7 if top >= _FINE else 0.1, 1.02, _TRIED, device=rows.device)
    errors = []
    for some in torch.split(shares, max(1, _AT_ONCE // rows.numel())):
        scale = (largest * some[:, None] / top).clamp(min=SMALLEST_SCALE)[..., None]  # (shares, rows, 1)
        errors.append((rows / scale).round_().clamp_(-top, top).mul_(scale).sub_(rows).square_().sum(2))
    return largest * shares[torch.cat(errors).argmin(0)]


def sqnr_db(signal: Tensor, noise: Tensor) -> float:
    """Signal-to-quantization-noise ratio in dB; 200 where there is no noise, 0 where there is no signal."""
    energy, error = (float(torch.linalg.vector_norm(part.float())) ** 2 for part in (signal, noise))
    if energy == 0:
        return 0.0
    return min(200.0, 10 * float(torch.log10(torch.tensor(energy / error)))) if error > 0 else 200.0
