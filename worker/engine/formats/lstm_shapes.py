"""The shapes of what follows an LSTM's last state, in files of the versions that wrote them down wrongly.

Up to PyTorch 2.12, `torch.export` gave the last hidden and cell state of an LSTM a dimension of 1 too many, as
``(layers, 1, batch, hidden)``; every shape computed from them is wrong with it, though the graph itself is right.
"""

from dataclasses import replace

from worker.engine.errors import RuntimeFailure
from worker.engine.formats.program import from_exported, rename
from worker.engine.formats.pt2_schema import Graph
from worker.engine.formats.pt2_writer import export_program
from worker.engine.network import Network

_NOTE = "The file gives the results that follow an LSTM's last state a wrong shape, which could not be mended."


def are_wrong(graph: Graph) -> bool:
    """Whether the file gives the last state of an LSTM four dimensions."""
    for node in graph.nodes:
        if node.target.startswith("torch.ops.aten.lstm."):
            names = [output.as_tensor.name for output in node.outputs if output.tag == "as_tensor"]
            if any(len(graph.tensor_values[name].sizes) == 4 for name in names[1:] if name in graph.tensor_values):
                return True
        if any(are_wrong(given.arg.as_graph.graph) for given in node.inputs if given.arg.tag == "as_graph"):
            return True
    return False


def mend(network: Network) -> None:
    """Put the shapes that the results have into `network`; a note where that is not possible."""
    try:
        program = from_exported(export_program(network))
    except RuntimeFailure:
        network.notes.append(_NOTE)
        return
    names = {
        str(new): str(old)
        for found, given in zip(program.inputs.values(), network.inputs, strict=True)
        for new, old in zip(found.shape, given.shape, strict=True)
    }
    results = [rename(spec, names) for spec in program.outputs if spec is not None]
    network.outputs = tuple(
        replace(spec, shape=result.shape, sizes=result.sizes)
        for spec, result in zip(network.outputs, results, strict=True)
    )
