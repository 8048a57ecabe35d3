"""What methods share: refusing what they cannot do, and the per-layer report."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, Final

import torch

from app.recipes.methods import LayerFilter
from worker.engine.data.samples import Samples, chosen
from worker.engine.errors import InvalidDataset, Unsupported
from worker.engine.network import Network
from worker.engine.quantized.fake import fake_quantized
from worker.engine.quantized.form import Quantization, original, stored_in
from worker.engine.quantized.placement import LAYERS, STORED, Placement, layer_calls
from worker.engine.quantized.trace import output_sqnr
from worker.engine.quantized.weights import sqnr_db
from worker.engine.state import Context

_STAYS: Final = " stays in float"


def calibration_samples(context: Context, count: int, who: str) -> Samples:
    """At most `count` of the calibration samples.

    Args:
        who: needs them, in the words of the error.
    Raises:
        InvalidDataset: ``calibration_required``.
    """
    if context.calibration is None:
        raise InvalidDataset("calibration_required", f"{who} needs calibration samples")
    return chosen(context.calibration, count, context.seed)


def check_known(names: Sequence[str], globs: Iterable[str]) -> None:
    """Refuse a glob that no layer matches.

    Raises:
        Unsupported: ``unknown_layer``, with names that are close to it.
    """
    for glob in globs:
        if glob != "*" and not any(fnmatchcase(name, glob) for name in names):
            near = get_close_matches(glob, names, 3, 0.4) or list(dict.fromkeys(names))[:3]
            raise Unsupported("unknown_layer", f"no layer is called {glob!r}; close to it: {', '.join(near)}")


def layer_names(network: Network) -> list[str]:
    """Paths of everything that has parameters."""
    return [path for path, part in network.module.named_modules() if path and any(True for _ in part.parameters())]


def check_trainable(network: Network, layers: LayerFilter) -> None:
    """Refuse a filter that leaves nothing to train.

    Raises:
        Unsupported: ``unknown_layer``, ``no_layers``.
    """
    names = layer_names(network)
    check_known(names, layers.globs)
    if not any(layers.matches(name) for name in names):
        raise Unsupported("no_layers", "there is no layer to train, or all are left out")


def check_quantizable(network: Network, layers: LayerFilter) -> None:
    """Refuse a network that cannot be quantized, and a filter that cannot do anything.

    Raises:
        Unsupported: ``unknown_layer`` for a glob without a match, with names that are close to it;
            ``no_layers`` where nothing is left to quantize; ``dtype_unsupported`` for weights that are not float32.
    """
    calls = [(str(node.target), layer) for node, layer in layer_calls(network.module)]
    check_known([name for name, _ in calls], layers.globs)
    if not any(isinstance(layer, (*LAYERS, *STORED.values())) and layers.matches(name) for name, layer in calls):
        raise Unsupported(
            "no_layers",
            "there is no convolution, linear, embedding or recurrent layer to quantize in this model, or all are left "
            "out",
        )
    # One half-precision value among the float32 ones of the integer kernels' edges, and runtimes refuse the file.
    others = {parameter.dtype for parameter in network.module.parameters()} - {torch.float32}
    if others:
        raise other_than_float32("quantization", others, "quantize that")


def other_than_float32(who: str, found: Iterable[torch.dtype], then: str) -> Unsupported:
    """What to tell of a model whose weights have types that `who` cannot start from; `then`: what to do afterwards."""
    names = sorted(str(dtype).removeprefix("torch.") for dtype in found)
    return Unsupported(
        "dtype_unsupported",
        f"{who} starts from float32 weights, and this model has {', '.join(names)}; export model.float() with float32 "
        f"inputs and {then}",
    )


def merged(before: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], network: Network) -> list[dict[str, Any]]:
    """``metrics.layers`` after a step: `rows` behind those of earlier steps that are still true.

    Args:
        before: of earlier steps; those that `rows` names too are replaced.
        network: as it is now; rows of layers and parameters that it no longer has are dropped.
    """
    known = {name for name, _ in network.module.named_modules(remove_duplicate=False)}
    known |= {name for name, _ in network.module.named_parameters(remove_duplicate=False)}
    new = {row["name"] for row in rows}
    return [*(row for row in before if row["name"] in known - new), *rows]


def layer_rows(
    quantization: Quantization, samples: Samples | None, context: Context, origin: Network | None = None
) -> list[dict[str, Any]]:
    """``metrics.layers``: one row per weight that is stored in few bits, the worst first.

    `sqnr_db` is of the weight. `output_sqnr_db` is of the layer's output in the quantized network on a few of
    `samples`, with everything that goes wrong in front of it; None without samples. `share` is the part of all stored
    weight bytes, scales and centroids counted. The float network is that of the quantization, or `origin`, whose
    nodes have the same names.
    """
    fake = fake_quantized(quantization)
    quantization = quantization if origin is None else replace(quantization, network=origin)
    module = quantization.network.module
    total = sum(weight.stored_bits for weight in quantization.weights.values())
    outputs = {} if samples is None else output_sqnr(quantization, fake, samples, context.device)
    rows = []
    for key, weight in quantization.weights.items():
        layer, name = stored_in(module, key)
        before, after = original(module, key), original(fake, key)
        path = key.removesuffix(f".{name}")
        rows.append(
            {
                "name": key,
                "kind": type(layer).__name__,
                "bits": weight.bits,
                "sqnr_db": round(sqnr_db(before, after - before), 2),
                "output_sqnr_db": outputs.get(path),
                "share": round(weight.stored_bits / total, 6),
            }
        )
    return sorted(rows, key=lambda row: row["sqnr_db"] if row["output_sqnr_db"] is None else row["output_sqnr_db"])


def saturation_note(targets: Collection[str]) -> list[str]:
    """What the user should know where weights were kept small for this worker's processor."""
    if not targets:
        return []
    return [
        f"{', '.join(targets)}: neighbouring weights are kept small, because kernels of processors without VNNI add "
        "pairs of products in 16 bits; for processors that have it, avoid_saturation: false is about 2 dB better"
    ]


def with_left(
    notes: Sequence[str], places: Mapping[str, Placement], quantized: Mapping[str, Quantization]
) -> list[str]:
    """`notes` and one line for each layer that stays in float, naming the targets where it does not so in all.

    Args:
        notes: of earlier steps; what they said of layers that are quantized now is taken back.
        places: target -> what this step decided for it.
        quantized: target -> everything that is quantized for it now.
    """
    done = {key for form in quantized.values() for key in form.weights}
    kept = [note for note in notes if not any(note.startswith(f"{key}{_STAYS}") for key in done)]
    reasons: dict[tuple[str, str], list[str]] = {}
    for target, place in places.items():
        for path, reason in place.left.items():
            if path not in quantized[target].weights:
                reasons.setdefault((path, reason), []).append(target)
    told = [
        f"{path}{_STAYS}{'' if len(targets) == len(places) else ' in ' + ', '.join(targets)}: {reason}"
        for (path, reason), targets in reasons.items()
    ]
    return [*kept, *told]
