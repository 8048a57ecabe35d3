"""Float ONNX + Quantization -> ONNX with QuantizeLinear / DequantizeLinear pairs that runtimes fuse.

Integer layers read ``DequantizeLinear(QuantizeLinear(x))``, an int8 weight and an int32 bias with the scale
``scale_x * scale_w``; their result goes into QuantizeLinear with nothing in between, so that ONNX Runtime makes one
QLinearConv (QGemm, QLinearAdd, ...) of it. Pure: the float model is not changed.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper
from torch import fx

from worker.engine.errors import RuntimeFailure
from worker.engine.quantized.affine import Affine
from worker.engine.quantized.fake import integer_bias
from worker.engine.quantized.form import Quantization, Weight
from worker.engine.quantized.placement import source_of
from worker.engine.targets.onnx_graph import initializer, producers, region, rename_value, sweep
from worker.engine.targets.onnx_layers import Site, Sites


def quantized_onnx(model: ModelProto, values: Mapping[str, str], quantization: Quantization) -> ModelProto:
    """The quantized file for a float one.

    Args:
        model: float; owned by the caller, left as it is.
        values: FX node name -> ONNX value, as `export_onnx` found them.
    Raises:
        RuntimeFailure: ``export_failed`` where a layer cannot be found in the file.
    """
    result = ModelProto()
    result.CopyFrom(model)
    writer = _Writer(result.graph, values, quantization)
    writer.write()
    sweep(result.graph)
    return result


class _Writer:
    """Rewires the graph; nodes that come out are put in order at the end.

    Attributes:
        before: id of a node -> nodes to put in front of it.
        after: value name -> nodes to put behind the node that makes it.
    """

    def __init__(self, graph: GraphProto, values: Mapping[str, str], quantization: Quantization) -> None:
        self.graph, self.quantization = graph, quantization
        self.values = dict(values)
        self.nodes = {node.name: node for node in quantization.network.module.graph.nodes}
        self.made_by = producers(graph)
        self.added: list[NodeProto] = []
        self.outputs = {output.name for output in graph.output}

    def write(self) -> None:
        readers = {name: self._readers(name) for name in self.quantization.activations}
        self._weights()
        done: set[str] = set()
        owners = {self.quantization.tail(name): name for name in self.quantization.integer}
        for name, grid in self.quantization.activations.items():
            if self.values[name] not in done:
                done.add(self.values[name])
                self._activation(name, owners.get(name), grid, readers[name])
        self._sort()

    def _region(self, node: fx.Node) -> list[NodeProto]:
        stops = {self.values[value.name] for value in node.all_input_nodes if value.name in self.values}
        return region(self.made_by, self.values[node.name], stops)

    def _readers(self, name: str) -> list[NodeProto]:
        """The ONNX nodes that compute the FX nodes which read integers from `name`."""
        value = self.nodes[name]
        readers: list[NodeProto] = []
        for user in value.users:
            if user.name in self.values and self.quantization.reads_integers(user, value):
                readers += [node for node in self._region(user) if self.values[name] in node.input]
        return readers

    def _activation(self, name: str, owner: str | None, grid: Affine, readers: list[NodeProto]) -> None:
        value = self.values[name]
        raw = self.values[owner] if owner is not None else value
        everyone = owner is not None
        target = f"{value}_dequantized"
        consumers = [node for node in self.graph.node if value in node.input] if everyone else readers
        for node in consumers:
            for index, read in enumerate(node.input):
                if read == value:
                    node.input[index] = target
        if everyone and value in self.outputs:
            target = self._free_output(value, raw, target)
            raw = f"{value}_float" if raw == value else raw
        scale = initializer(self.graph, f"{value}_scale", np.array(grid.scale, np.float32))
        zero = initializer(self.graph, f"{value}_zero_point", np.array(grid.zero_point, grid.dtype))
        integers = f"{value}_quantized"
        self.added += [
            helper.make_node("QuantizeLinear", [raw, scale, zero], [integers], name=f"{value}_quantize"),
            helper.make_node("DequantizeLinear", [integers, scale, zero], [target], name=f"{value}_dequantize"),
        ]

    def _free_output(self, value: str, raw: str, target: str) -> str:
        """Let the dequantized value have the output's name; returns that name."""
        if raw == value:
            rename_value(self.graph, value, f"{value}_float")
        else:  # the absorbed ReLU made it
            self.graph.node.remove(self.made_by[value])
        rename_value(self.graph, target, value)
        return value

    def _weights(self) -> None:
        sites = Sites(self.graph, self.made_by, set(self.values.values()))
        for node in self.nodes.values():
            weight = self.quantization.weights.get(str(node.target)) if node.op == "call_module" else None
            if weight is None:
                continue
            site = sites.find(self.values[node.name], tuple(weight.values.shape))
            if site is None:
                raise RuntimeFailure("export_failed", f"layer {node.target} has no place in the ONNX graph")
            grid = self.quantization.activations.get(source_of(node).name)
            integer = node.name in self.quantization.integer
            if node.name in self.quantization.dynamic:
                self._dynamic(str(node.target), node.name, site, weight)
            else:
                self._layer(str(node.target), node.name, site, weight, grid if integer else None)

    def _layer(self, path: str, call: str, site: Site, weight: Weight, grid: Affine | None) -> None:
        """Integer weight, and where its input is on `grid` an int32 bias."""
        integers = weight.values.numpy()
        constants = [
            initializer(self.graph, f"{path}.weight_quantized", integers.T if site.transposed else integers),
            initializer(self.graph, f"{path}.weight_scale", _scalar(weight.scale.numpy())),
            initializer(self.graph, f"{path}.weight_zero_point", _scalar(np.zeros(len(weight.scale), np.int8))),
        ]
        axis = {"axis": site.axis} if len(weight.scale) > 1 else {}
        site.node.input[1] = self._dequantize(f"{call}.weight", constants, axis)
        if site.bias is None or weight.bias is None:
            return
        reader, index = site.bias
        if grid is None or reader is not site.node:
            reader.input[index] = initializer(self.graph, f"{path}.bias_corrected", weight.bias.numpy())
            return
        scales = weight.scale.numpy() * np.float32(grid.scale)
        bias = integer_bias(weight, grid).numpy()
        constants = [
            initializer(self.graph, f"{call}.bias_quantized", bias),
            initializer(self.graph, f"{call}.bias_scale", _scalar(scales)),
        ]
        reader.input[index] = self._dequantize(f"{call}.bias", constants, {"axis": 0} if len(scales) > 1 else {})

    def _dynamic(self, path: str, call: str, site: Site, weight: Weight) -> None:
        """DynamicQuantizeLinear, MatMulInteger and the scaling of its int32 result, in the order that
        ONNX Runtime fuses to one kernel."""
        integers = initializer(self.graph, f"{path}.weight_quantized", weight.values.numpy().T)
        scales = initializer(self.graph, f"{path}.weight_scale", _scalar(weight.scale.numpy()))
        last, result = (site.adder or site.node), f"{call}.scaled"
        data, final = site.node.input[0], last.output[0]
        if weight.bias is not None:
            bias = initializer(self.graph, f"{path}.bias_corrected", weight.bias.numpy())
            self.added.append(helper.make_node("Add", [result, bias], [final], name=f"{call}.add_bias"))
        else:
            result = final
        q, scale, zero = (f"{call}.input_{part}" for part in ("quantized", "scale", "zero_point"))
        chain = [
            ("DynamicQuantizeLinear", [data], [q, scale, zero]),
            ("MatMulInteger", [q, integers, zero], [f"{call}.product"]),
            ("Mul", [scale, scales], [f"{call}.output_scale"]),
            ("Cast", [f"{call}.product"], [f"{call}.product_float"]),
            ("Mul", [f"{call}.product_float", f"{call}.output_scale"], [result]),
        ]
        for operator, read, made in chain:
            node = helper.make_node(operator, read, made, name=f"{made[0]}.node")
            if operator == "Cast":
                node.attribute.append(helper.make_attribute("to", TensorProto.FLOAT))
            self.added.append(node)
        for old in (site.node, site.adder):
            if old is not None:
                self.graph.node.remove(old)

    def _dequantize(self, name: str, constants: list[str], settings: dict[str, int]) -> str:
        result = f"{name}_dequantized"
        node = helper.make_node("DequantizeLinear", constants, [result], name=f"{name}_dequantize")
        node.attribute.extend(helper.make_attribute(key, value) for key, value in settings.items())
        self.added.append(node)
        return result

    def _sort(self) -> None:
        """Topological order, the old one where it can be."""
        waiting = [*self.graph.node, *self.added]
        made = {name for node in waiting for name in node.output}
        ordered: list[NodeProto] = []
        ready: set[str] = set()
        while waiting:
            later = []
            for node in waiting:
                if all(name in ready or name not in made for name in node.input):
                    ordered.append(node)
                    ready.update(node.output)
                else:
                    later.append(node)
            if len(later) == len(waiting):
                raise RuntimeFailure("export_failed", "the quantized graph has a cycle")
            waiting = later
        copies = [NodeProto.FromString(node.SerializeToString()) for node in ordered]
        del self.graph.node[:]
        self.graph.node.extend(copies)


def _scalar(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """One value without dimensions, as per-tensor scales are written; several as they are."""
    return values.reshape(()) if len(values) == 1 else values
