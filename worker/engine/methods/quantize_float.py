"""``quantize.float``: weights in float16, bfloat16 or float8, two or four times smaller; no data needed.

float16 has 11 significant bits and ends at 65504, bfloat16 has 8 and float32's range, float8_e4m3 has 4 and ends at
448 (Micikevicius et al. 2022, https://arxiv.org/abs/2209.05433). float8 gets one scale per output channel,
``w ~ s_c w8`` with ``s_c = max |w| / 448``; the others are stored as they are, and a layer that leaves float16's range
gets scales too. Layers compute in float32 from what is stored, unless the runtime chooses less by itself.
"""

from typing import Final

import torch
from torch import Tensor

from app.recipes import Step
from app.recipes.methods import QuantizeFloat
from worker.engine.formats.fold import fold_batch_norm
from worker.engine.methods.layers import check_quantizable
from worker.engine.methods.stored import layers_in, store, stored_places, tables_in
from worker.engine.quantized.affine import SMALLEST_SCALE
from worker.engine.quantized.form import Weight, bias_beside, original, stored_in
from worker.engine.state import Compressed, Context

_TYPES: Final = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float8_e4m3": torch.float8_e4m3fn}
#: Formats whose range a scale has to fit the weights into.
_SCALED: Final = (torch.float8_e4m3fn,)


def quantize_float(compressed: Compressed, step: Step, context: Context) -> Compressed:
    """Store the weights of every layer in the step's format.

    Raises:
        Unsupported: ``unknown_layer`` where a glob matches nothing, ``no_layers`` where nothing is left.
    """
    if not isinstance(step, QuantizeFloat):
        raise TypeError(f"{type(step).__name__} is not QuantizeFloat")
    network = fold_batch_norm(compressed.network)
    check_quantizable(network, step.layers)
    places = stored_places(network, step.layers, context)
    note = f"weights are stored in {step.format} and layers compute in float32: smaller, not faster"
    keys = (*layers_in(places), *tables_in(places))
    weights = {key: _stored(network.module, key, _TYPES[step.format]) for key in keys}
    done = store(compressed, network, places, weights, context, [note])
    context.progress(1.0)
    return done


@torch.no_grad()
def _stored(module: torch.nn.Module, key: str, dtype: torch.dtype) -> Weight:
    layer, name = stored_in(module, key)
    values, scale = cast(original(module, key), dtype)
    return Weight(values, scale, bias_beside(layer, name), values.itemsize * 8)


def cast(weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """`weight` (channels, ...) in `dtype`, and float32 scales: (channels,), or (1,) of 1 where none are needed."""
    limit = torch.finfo(dtype).max
    largest = weight.reshape(weight.shape[0], -1).abs().amax(1)
    if dtype not in _SCALED and float(largest.max()) <= limit:
        return weight.to(dtype), torch.ones(1, device=weight.device)
    scale = torch.clamp(largest / limit, min=SMALLEST_SCALE)
    scale = torch.where(largest > 0, scale, torch.ones_like(scale))
    return (weight / scale.reshape(-1, *[1] * (weight.dim() - 1))).clamp(-limit, limit).to(dtype), scale
