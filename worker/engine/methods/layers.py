"""What the quantization methods share: refusing what they cannot do, and the per-layer report."""

from collections.abc import Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import torch

from app.recipes.methods import LayerFilter
from worker.engine.errors import Unsupported
from worker.engine.network import Network
from worker.engine.quantized.form import Quantization
from worker.engine.quantized.placement import LAYERS, layer_calls
from worker.engine.quantized.weights import sqnr_db


def check_quantizable(network: Network, layers: LayerFilter) -> None:
    """Refuse a network that cannot be quantized, and a filter that cannot do anything.

    Raises:
        Unsupported: ``unknown_layer`` for a glob without a match, with names that are close to it;
            ``no_layers`` where nothing is left to quantize; ``dtype_unsupported`` for weights that are not float32.
    """
    calls = [(str(node.target), layer) for node, layer in layer_calls(network.module)]
    names = list(dict.fromkeys(name for name, _ in calls))
    for glob in (*layers.include, *layers.exclude):
        if glob != "*" and not any(fnmatchcase(name, glob) for name in names):
            near = get_close_matches(glob, names, 3, 0.4) or names[:3]
            raise Unsupported("unknown_layer", f"no layer is called {glob!r}; close to it: {', '.join(near)}")
    if not any(isinstance(layer, LAYERS) and layers.matches(name) for name, layer in calls):
        raise Unsupported(
            "no_layers", "there is no convolution or linear layer to quantize in this model, or all are left out"
        )
    # One half-precision value among the float32 ones of the integer kernels' edges, and runtimes refuse the file.
    others = {str(p.dtype).removeprefix("torch.") for p in network.module.parameters() if p.dtype != torch.float32}
    if others:
        raise Unsupported(
            "dtype_unsupported",
            f"quantization starts from float32 weights, and this model has {', '.join(sorted(others))}; "
            "export model.float() with float32 inputs and quantize that",
        )


def layer_rows(quantization: Quantization) -> list[dict[str, Any]]:
    """``metrics.layers``: one row per quantized layer, the worst weight SQNR first.

    `share` is the layer's part of all weight bytes of the quantized layers.
    """
    module = quantization.network.module
    total = sum(weight.values.numel() * weight.bits for weight in quantization.weights.values())
    rows = []
    for path, weight in quantization.weights.items():
        layer = module.get_submodule(path)
        if not isinstance(layer, LAYERS):
            raise TypeError(f"{path} is not a layer that is quantized")
        original = layer.weight.detach().float()
        rows.append(
            {
                "name": path,
                "kind": type(layer).__name__,
                "bits": weight.bits,
                "sqnr_db": round(sqnr_db(original, weight.dequantized() - original), 2),
                "share": round(weight.values.numel() * weight.bits / total, 6),
            }
        )
    return sorted(rows, key=lambda row: row["sqnr_db"])


def left_notes(left: Mapping[str, str]) -> list[str]:
    """One line for each layer that stays in float."""
    return [f"{path} stays in float: {reason}" for path, reason in left.items()]
