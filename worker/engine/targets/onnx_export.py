"""A float network as one ONNX file, with the names under which its values are found there.

A network that was read from ONNX is written back from the user's own graph. Others go through `torch.onnx.export`,
with an *anchor* operator behind every value: it carries the FX node's name through the exporter, which is free to
rename, split and merge everything else, and is removed afterwards.
"""

import copy
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper
from torch import Tensor, fx, nn

from worker.engine.errors import RuntimeFailure
from worker.engine.formats.fold import fold_batch_norm
from worker.engine.formats.onnx_reader.file import OnnxSource, opset_of
from worker.engine.formats.prints import fingerprints
from worker.engine.network import Network
from worker.engine.quantized.placement import LAYERS, Layer, layer_calls
from worker.engine.targets.float_export import FloatExport
from worker.engine.targets.onnx_graph import producers, read_constants_directly, rename_value, sweep
from worker.engine.targets.onnx_layers import Site, Sites, put_float, put_initializer
from worker.engine.targets.quiet import quiet
from worker.engine.targets.translations import table_kept

OPSET: Final = 21
_PER_CHANNEL: Final = 13  # first opset whose DequantizeLinear has an axis
_DOMAIN: Final = "modelpress"
_LARGEST_FILE: Final = 1 << 31
_RESERVED: Final = "modelpress."
_INPUT, _OUTPUT = f"{_RESERVED}input.", f"{_RESERVED}output."


def export_onnx(network: Network, folder: Path) -> FloatExport:
    """Write `network` to ``folder/float.onnx``.

    Raises:
        RuntimeFailure: ``export_failed`` where the exporter gives up.
    """
    folded = fold_batch_norm(network)
    source = _from_source(folded)
    model, values = source if source is not None else _from_torch(folded)
    path = folder / "float.onnx"
    save(model, path)
    return FloatExport(path, folded, model, values)


def save(model: ModelProto, path: Path) -> None:
    """One file; weights beside it only where protobuf's 2 GiB are not enough."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    if data < _LARGEST_FILE - (1 << 24):
        path.write_bytes(model.SerializeToString())
    else:
        copied = ModelProto()
        copied.CopyFrom(model)  # saving in parts empties what it saves
        onnx.save_model(copied, str(path), save_as_external_data=True, location=f"{path.name}.data")


def _from_source(network: Network) -> tuple[ModelProto, dict[str, str]] | None:
    """The graph that the network was read from, with today's weights and without its folded batch norms.

    None where the network did not come from ONNX, its layers are not found there, other weights than theirs have
    changed, or it is older than per-channel quantization.
    """
    source = network.source
    if not isinstance(source, OnnxSource) or opset_of(source.outline) < _PER_CHANNEL:
        return None
    if not fingerprints(network.module).items() <= source.prints.items():
        return None
    nodes = [node for node in network.module.graph.nodes if node.op not in ("output", "get_attr")]
    values = {node.name: str(node.meta["onnx_value"]) for node in nodes if "onnx_value" in node.meta}
    if any(node.name not in values for node, layer in layer_calls(network.module) if isinstance(layer, LAYERS)):
        return None
    model = source.model
    read_constants_directly(model.graph)
    made_by = producers(model.graph)
    sites = Sites(model.graph, made_by, set(values.values()))
    for node, layer in layer_calls(network.module):
        if isinstance(layer, nn.LayerNorm) and not _put_norm(
            model.graph, made_by.get(values.get(node.name, "")), node, layer
        ):
            return None
        if not isinstance(layer, LAYERS):
            continue
        site = sites.find(values[node.name], tuple(layer.weight.shape))
        if site is None or (layer.bias is not None and site.bias is None and site.node.op_type == "MatMul"):
            return None
        if site.norm is not None:
            _drop_norm(model, site)
        if not _unchanged(model, site, layer):
            bias = None if layer.bias is None else layer.bias.detach().numpy()
            put_float(model.graph, site, f"{node.target}.folded", layer.weight.detach().numpy(), bias)
    sweep(model.graph)
    return model, values


def _unchanged(model: ModelProto, site: Site, layer: Layer) -> bool:
    """Whether the file already has the layer's weights."""
    if site.norm is not None:
        return False
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    weight = numpy_helper.to_array(constants[site.node.input[1]])
    if not np.array_equal(weight.T if site.transposed else weight, layer.weight.detach().numpy()):
        return False
    if layer.bias is None or site.bias is None:
        return layer.bias is None
    bias = constants.get(site.bias[0].input[site.bias[1]])
    return bias is not None and np.array_equal(numpy_helper.to_array(bias).reshape(-1), layer.bias.detach().numpy())


def _put_norm(graph: GraphProto, site: NodeProto | None, node: fx.Node, layer: nn.LayerNorm) -> bool:
    """Write a layer norm's gain and bias where the file has others; whether its node could be found."""
    named = [(position, part) for position, part in enumerate((layer.weight, layer.bias), 1) if part is not None]
    if (
        site is None
        or site.op_type != "LayerNormalization"
        or len(site.input) <= max((at for at, _ in named), default=0)
    ):
        return not named
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for position, part in named:
        values, stored = part.detach().numpy(), constants.get(site.input[position])
        if stored is None or not np.array_equal(numpy_helper.to_array(stored), values):
            site.input[position] = put_initializer(graph, f"{node.target}.changed.{position}", values)
    return True


def _drop_norm(model: ModelProto, site: Site) -> None:
    """Let the layer compute under the name of the batch norm's result."""
    norm = site.norm
    if norm is None:
        return
    result = norm.output[0]
    before = norm.input[0]
    model.graph.node.remove(norm)
    rename_value(model.graph, before, result)


def _from_torch(network: Network) -> tuple[ModelProto, dict[str, str]]:
    lengths = any(isinstance(dim, str) for spec in network.inputs for dim in spec.shape[1:])
    if lengths and any(isinstance(part, nn.RNNBase) for part in network.module.modules()):
        detail = (
            "the exporter takes the length of a recurrent layer for a constant; upload the model with a fixed length"
        )
        raise RuntimeFailure("export_failed", f"the model cannot be written as ONNX: {detail}")
    module = copy.deepcopy(network.module)
    _rename_constants(module)
    examples = network.examples()
    floats = _float_values(module, examples)
    for node in list(module.graph.nodes):
        if node.name in floats:
            with module.graph.inserting_after(node):
                anchored = module.graph.call_function(_anchor, (node, node.name))
            node.replace_all_uses_with(anchored, lambda user, anchored=anchored: user is not anchored)
    module.recompile()
    with quiet(), table_kept():
        try:
            program = torch.onnx.export(
                module,
                examples,
                dynamo=True,
                opset_version=OPSET,
                input_names=[f"{_INPUT}{index}" for index in range(len(network.inputs))],
                output_names=[f"{_OUTPUT}{index}" for index in range(len(network.outputs))],
                dynamic_shapes=_dynamic_shapes(network),
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = str(error).strip().splitlines()[-1]
            raise RuntimeFailure("export_failed", f"the model cannot be written as ONNX: {reason}") from error
    if program is None:
        raise RuntimeFailure("export_failed", "the ONNX exporter returned nothing")
    model = program.model_proto
    return model, _renamed(model.graph, _remove_anchors(model), network)


def _rename_constants(module: fx.GraphModule) -> None:
    """Constants that an exporter has named before (``val_76``) meet the names that it gives now, and it fails."""
    for node in module.graph.nodes:
        name = str(node.target)
        if node.op == "get_attr" and name.startswith("val_") and isinstance(getattr(module, name, None), Tensor):
            value, node.target = getattr(module, name), f"constant_{name}"
            if isinstance(value, nn.Parameter):
                module.register_parameter(node.target, value)
            else:
                module.register_buffer(node.target, value)


def _renamed(graph: GraphProto, values: dict[str, str], network: Network) -> dict[str, str]:
    """Give inputs and outputs the user's names; returns FX node name -> ONNX value as it is called now.

    The exporter would do so without looking whether another value has the name already: a model with the output
    ``linear_1`` that got a layer more in front of it has two of that name.
    """
    names = {f"{_INPUT}{index}": spec.name for index, spec in enumerate(network.inputs)}
    names.update({f"{_OUTPUT}{index}": spec.name for index, spec in enumerate(network.outputs)})
    used = {name for node in graph.node for name in node.output} | {tensor.name for tensor in graph.initializer}
    for taken in used & set(names.values()):
        free = f"{taken}_value"
        while free in used or free in names.values():
            free += "_"
        used.add(free)
        names[taken] = free
    # Values that stand in the way first, so that no two have one name in between.
    for old, new in sorted(names.items(), key=lambda pair: pair[0].startswith(_RESERVED)):
        rename_value(graph, old, new)
        for value in (*graph.input, *graph.output, *graph.initializer):
            if value.name == old:
                value.name = new
    return {node: names.get(value, value) for node, value in values.items()}


def _anchor(value: Tensor, name: str) -> Tensor:
    result: Tensor = torch.onnx.ops.symbolic(
        f"{_DOMAIN}::Anchor", (value,), {"node": name}, dtype=value.dtype, shape=value.shape, version=1
    )
    return result


def _dynamic_shapes(network: Network) -> tuple[dict[int, Any], ...] | None:
    shapes = tuple(
        {
            axis: torch.export.Dim.DYNAMIC if axis else "batch"
            for axis, dim in enumerate(spec.shape)
            if isinstance(dim, str)
        }
        for spec in network.inputs
    )
    return shapes if any(shapes) else None


class _Floats(fx.Interpreter):
    """Notes which nodes have a floating-point tensor as their value."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.names: set[str] = set()

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.op not in ("get_attr", "output") and isinstance(result, Tensor) and result.is_floating_point():
            self.names.add(n.name)
        return result


@torch.no_grad()
def _float_values(module: fx.GraphModule, examples: tuple[Tensor, ...]) -> set[str]:
    floats = _Floats(module)
    floats.run(*examples)
    return floats.names


def _remove_anchors(model: ModelProto) -> dict[str, str]:
    """Take the anchors out of the graph; returns FX node name -> ONNX value."""
    graph = model.graph
    values: dict[str, str] = {}
    outputs = {output.name for output in graph.output}
    inputs = {value.name for value in graph.input}
    for node in [node for node in graph.node if node.domain == _DOMAIN]:
        before, after = node.input[0], node.output[0]
        graph.node.remove(node)
        name = onnx.helper.get_node_attr_value(node, "node").decode()
        if after in outputs and before not in inputs and before not in outputs:
            rename_value(graph, before, after)
            values = {key: after if value == before else value for key, value in values.items()}
            values[name] = after
        elif after in outputs:
            graph.node.append(onnx.helper.make_node("Identity", [before], [after]))
            values[name] = before
        else:
            rename_value(graph, after, before)
            values[name] = before
    kept = [entry for entry in model.opset_import if entry.domain != _DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    return values
