"""The checks of uploads: what a file is, or why it is refused."""

from collections import Counter
from pathlib import Path

import torch
from torch import nn

from app.recipes import ModelFacts
from app.recipes.facts import LayerFacts, TensorFacts
from worker.engine import formats
from worker.engine.data.check import check_dataset
from worker.engine.errors import InvalidModel
from worker.engine.measure.macs import Costs, count_costs, random_inputs
from worker.engine.network import Network, TensorSpec

__all__ = ["check_dataset", "check_model"]


def check_model(path: Path, format: str | None = None, filename: str = "") -> ModelFacts:
    """What an uploaded model is. It is run once on a tiny random batch, so that what is accepted does run.

    Args:
        path: the file.
        format: as the uploader said; None: told from the content.
        filename: the uploader's name for it, for messages only.

    Raises:
        UnsafeFile: the file could run code when loaded.
        InvalidModel: the file cannot be read, or ``model_does_not_run``.
        Unsupported: operators or features beyond what is supported; the detail names them.
        MemoryError: the model needs more memory than there is.
    """
    network = formats.read(path, format)
    _refuse_nan(network)
    costs = _run(network, filename or path.name)
    modules = dict(network.module.named_modules())
    called = dict.fromkeys(str(node.target) for node in network.module.graph.nodes if node.op == "call_module")
    layers = tuple(
        LayerFacts(
            name=name,
            kind=type(modules[name]).__name__,
            parameters=_scalars(modules[name]),
            macs=costs.macs.get(name, 0),
            shapes={key: tuple(value.shape) for key, value in modules[name].named_parameters()},
            groups=int(getattr(modules[name], "groups", 1)),
        )
        for name in called
    )
    return ModelFacts(
        format=network.format,
        inputs=_tensors(network.inputs),
        outputs=_tensors(network.outputs),
        parameters=network.parameters,
        layers=layers,
        operators=_operators(network, modules),
        value_bytes=costs.value_bytes,
        live_bytes=costs.live_bytes,
        notes=tuple(network.notes),
    )


def _refuse_nan(network: Network) -> None:
    """Rounding would turn NaN into some number, and the artifact would seem better than the model."""
    for name, parameter in network.module.named_parameters():
        if parameter.is_floating_point() and bool(parameter.isnan().any()):
            raise InvalidModel(
                "weights_invalid", f"Weight {name!r} holds NaN: its training diverged. Export an earlier state of it."
            )


def _run(network: Network, name: str) -> Costs:
    try:
        costs = count_costs(network)
        with torch.no_grad():
            outputs = network.module(*random_inputs(network, batch=1))
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, NotImplementedError) as error:
        if "allocate memory" in str(error):
            raise MemoryError(str(error)) from error
        raise InvalidModel(
            "model_does_not_run",
            f"{name} was read but does not run on random inputs of its shapes: {str(error)[:500]}. Check that the "
            "exported program runs after torch.export.load or in ONNX Runtime.",
        ) from error
    if len(outputs) != len(network.outputs):
        raise InvalidModel(
            "model_does_not_run", f"{name} returns {len(outputs)} outputs and declares {len(network.outputs)}."
        )
    return costs


def _scalars(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _tensors(specs: tuple[TensorSpec, ...]) -> tuple[TensorFacts, ...]:
    return tuple(TensorFacts(name=spec.name, dtype=spec.dtype, shape=spec.shape) for spec in specs)


def _operators(network: Network, modules: dict[str, nn.Module]) -> dict[str, int]:
    """How often each kind of layer and each operator is called."""
    counts = Counter(
        type(modules[str(node.target)]).__name__ if node.op == "call_module" else str(node.target)
        for node in network.module.graph.nodes
        if node.op in ("call_module", "call_function")
    )
    return dict(sorted(counts.items()))
