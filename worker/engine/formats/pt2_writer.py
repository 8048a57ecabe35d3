"""Writing networks as ``.pt2``: a plain exported program that stock PyTorch loads."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch.export import Dim, ExportedProgram

from worker.engine.errors import RuntimeFailure
from worker.engine.formats.lift import quiet_export
from worker.engine.network import Network, TensorSpec

_SMALLEST_BATCH = 2  # torch.export takes 0 and 1 for constants


def _dynamic(spec: TensorSpec) -> dict[int, object]:
    return {index: Dim.DYNAMIC for index, dim in enumerate(spec.shape) if isinstance(dim, str)}


def export_program(network: Network) -> ExportedProgram:
    """Export `network` in evaluation mode; symbolic dimensions of its inputs stay symbolic.

    Raises:
        RuntimeFailure: ``export_failed``, with what `torch.export` said.
    """
    module, training = network.module.eval(), network.module.training
    try:
        with torch.no_grad():
            return quiet_export(module, network.examples(_SMALLEST_BATCH), tuple(map(_dynamic, network.inputs)))
    except Exception as error:  # torch.export raises whatever the tracing of the graph raises
        raise RuntimeFailure("export_failed", f"torch.export could not write the network: {error}"[:1000]) from error
    finally:
        module.train(training)


def _with_named_outputs(network: Network) -> fx.GraphModule:
    """The same weights under a graph that returns what its user knows: a tensor, a tuple, or a dictionary."""
    names = [spec.name for spec in network.outputs]
    graph = fx.Graph()
    results: Any = graph.graph_copy(network.module.graph, {})
    if names == ["output"]:
        results = results[0]
    elif names != [f"output_{index}" for index in range(len(names))]:
        results = dict(zip(names, results, strict=True))
    graph.output(results)
    return fx.GraphModule(network.module, graph)


def write_pt2(network: Network, path: Path) -> None:
    """Write `network` to `path`, without sample inputs and without traces of this machine's source files."""
    program = export_program(replace(network, module=_with_named_outputs(network)))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    program._example_inputs = None
    torch.export.save(program, path)
