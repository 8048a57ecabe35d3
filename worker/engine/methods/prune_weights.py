"""``prune.weights``: single weights become zero; layers keep their shapes.

The mathematics is in `worker.engine.sparse`: scores, patterns, what changes when a weight goes, and the schedule.
Batch norms stay: folding them scales rows, in which zeros stay zeros.
"""

import copy
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor, fx, nn

from app.recipes import Step
from app.recipes.methods import LayerFilter, PruneWeights
from worker.engine.data.samples import Samples
from worker.engine.errors import Unsupported
from worker.engine.methods.layers import calibration_samples, check_known, merged
from worker.engine.methods.lesson import Lesson, teach, training_samples
from worker.engine.network import Network
from worker.engine.quantized.placement import layer_calls
from worker.engine.quantized.weights import sqnr_db
from worker.engine.sparse.criteria import Pruning
from worker.engine.sparse.prunable import Prunable, prunable, weight_of
from worker.engine.sparse.thinning import Thinning
from worker.engine.state import Compressed, Context
from worker.engine.training.whole import graduated, whole

#: What the user should know of weights that are zero.
_DENSE: Final = (
    "zeros are stored and multiplied like other numbers in the artifact: it is neither smaller nor faster by itself, "
    "but its file compresses well"
)
#: Share of a layer's weights that is too little to carry anything.
_LITTLE: Final = 0.01


def prune_weights(compressed: Compressed, step: Step, context: Context) -> Compressed:
    """Set weights to zero, and name the parameters that have such zeros in `Compressed.pruned`.

    Raises:
        Unsupported: ``unknown_layer`` for a glob without a match; ``no_layers`` where nothing can be pruned;
            ``task_unsupported``, ``training_diverged`` where it trains.
        InvalidDataset: ``calibration_required``, ``too_few_samples``; ``not_finite`` where a sample leads to NaN or
            infinity; ``training_required``, ``labels_required`` where it trains.
    """
    if not isinstance(step, PruneWeights):
        raise TypeError(f"{type(step).__name__} is not PruneWeights")
    samples = _calibration(step, context)
    found = _found(compressed.network, step)
    pruning = Pruning(
        network=compressed.network,
        names=found.names,
        gone=already_gone(compressed.network.module, found.names, compressed.pruned),
        step=step,
        samples=samples,
        task=context.task,
        device=context.device,
        seed=context.seed,
    )
    if step.trains:
        network, curves = _trained(compressed, pruning, context)
    else:
        network, curves = _pruned(pruning, context), {}
    names = (*compressed.pruned, *(name for name in found.names if name not in compressed.pruned))
    notes = [*compressed.notes, *_notes(replace(pruning, network=network), found)]
    rows = _rows(compressed.to("cpu").network.module, network.to("cpu").module, found.names)
    layers = merged(compressed.layers, rows, network)
    return replace(compressed.with_curves(curves), network=network, pruned=names, notes=notes, layers=layers)


def _pruned(pruning: Pruning, context: Context) -> Network:
    """All at once."""
    network = replace(pruning.network, module=copy.deepcopy(pruning.network.module))
    network.module.eval()
    replace(pruning, network=network, progress=context.progress).prune(pruning.step.sparsity)
    return network


def _trained(compressed: Compressed, pruning: Pruning, context: Context) -> tuple[Network, dict[str, list[float]]]:
    """While it trains; the pruned network on CPU, and the curves of the training."""
    step = pruning.step
    samples = training_samples(step, context, taught=step.teacher)
    network = compressed.to("cpu").network  # the training takes copies to the device
    gone = {name: mask.to("cpu") for name, mask in pruning.gone.items()}
    thinning = Thinning(replace(pruning, network=network, gone=gone))
    lesson = Lesson(
        step, context, network, network, samples,
        taught=step.teacher, pruned=compressed.pruned, statistics=1.0, fast=True,
        before=thinning.before, after=thinning.after,
    )  # fmt: skip
    pupil, curves = teach(lesson, lambda points: whole(thinning.begin(), LayerFilter()))
    trained = graduated(pupil)
    thinning.end(trained)
    return trained, curves


def already_gone(module: fx.GraphModule, names: tuple[str, ...], pruned: tuple[str, ...]) -> dict[str, Tensor]:
    """Name -> mask of the zeros that earlier steps have made; no weight is, where `pruned` does not name it."""
    weights = {name: weight_of(module, name).detach() for name in names}
    return {
        name: weight == 0 if name in pruned else torch.zeros_like(weight, dtype=torch.bool)
        for name, weight in weights.items()
    }


def _calibration(step: PruneWeights, context: Context) -> Samples | None:
    if "calibration" not in step.needed:
        return None
    return calibration_samples(context, step.samples, f"criterion {step.criterion}")


def _found(network: Network, step: PruneWeights) -> Prunable:
    check_known([str(node.target) for node, _ in layer_calls(network.module)], step.layers.globs)
    found = prunable(network, step.layers, fours=step.pattern == "2:4")
    if not found.names:
        why = "; ".join(f"{name}: {reason}" for name, reason in found.left.items())
        raise Unsupported(
            "no_layers",
            "there is no convolution, linear or recurrent layer to prune in this model, or all are left out"
            + (f" ({why})" if why else ""),
        )
    return found


def _notes(pruning: Pruning, found: Prunable) -> list[str]:
    """What was pruned, what was not and why, and what it is good for."""
    step, module = pruning.step, pruning.network.module
    weights = {name: weight_of(module, name).detach() for name in found.names}
    zeros = {name: weight.numel() - int(weight.count_nonzero()) for name, weight in weights.items()}
    total = sum(weight.numel() for weight in weights.values())
    lines = [
        f"{100 * sum(zeros.values()) / total:.1f} % of the {total} weights of {len(weights)} layers' matrices are zero "
        f"({step.criterion}, {step.pattern})",
        _DENSE,
    ]
    if step.scope == "global" and step.within_layers:
        lines.append(f"{step.within_layers} compares the weights of a layer with each other: each gives its share")
    empty = [name for name, weight in weights.items() if weight.numel() - zeros[name] < _LITTLE * weight.numel()]
    if empty:
        lines.append(f"{', '.join(empty)}: less than 1 % of the weights is left; scope layer, or a filter, spares them")
    if blind := pruning.blind():
        lines.append(
            f"{', '.join(blind)}: pruned by magnitude, because {step.criterion} sees what convolutions of one and two "
            "dimensions and linear layers read"
        )
    lines += [f"{name} is not pruned: {reason}" for name, reason in found.left.items()]
    return lines


def _rows(before: nn.Module, after: nn.Module, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """``metrics.layers``: one row per pruned weight, the sparsest first."""
    total = sum(after.get_parameter(name).numel() for name in names)
    rows = []
    for name in names:
        old, new = (module.get_parameter(name).detach().float() for module in (before, after))
        rows.append(
            {
                "name": name.removesuffix(".weight"),
                "kind": type(after.get_submodule(name.rpartition(".")[0])).__name__,
                "bits": 8 * after.get_parameter(name).element_size(),
                "sqnr_db": round(sqnr_db(old, new - old), 2),
                "output_sqnr_db": None,
                "share": round(new.numel() / total, 6),
                "sparsity": round(1 - int(new.count_nonzero()) / new.numel(), 6),
            }
        )
    return sorted(rows, key=lambda row: -row["sparsity"])
