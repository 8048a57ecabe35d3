"""Float ONNX + Quantization -> ONNX with QuantizeLinear / DequantizeLinear pairs that runtimes fuse.

Integer layers read ``DequantizeLinear(QuantizeLinear(x))``, an int8 weight and an int32 bias with the scale
``scale_x * scale_w``; their result goes into QuantizeLinear with nothing in between, so that ONNX Runtime makes one
QLinearConv (QGemm, QLinearAdd, ...) of it. Pure: the float model is not changed.
"""

from collections.abc import Mapping

import numpy as np
import torch
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper
from torch import Tensor, fx, nn

from worker.engine.errors import RuntimeFailure
from worker.engine.quantized.affine import Affine
from worker.engine.quantized.fake import KERNEL_BITS, integer_bias
from worker.engine.quantized.form import Quantization, Weight
from worker.engine.quantized.placement import parameter_keys, source_of, varies
from worker.engine.targets.onnx_graph import at_least, initializer, producers, region, rename_value, sweep
from worker.engine.targets.onnx_layers import Site, Sites, place_of_bias
from worker.engine.targets.onnx_storage import MICROSOFT, Storage, blocked, blocks, is_packed, scalar
from worker.engine.targets.onnx_tables import write_embedding, write_recurrent


def quantized_onnx(
    model: ModelProto, values: Mapping[str, str], quantization: Quantization, *, folds: bool = True
) -> ModelProto:
    """The quantized file for a float one.

    Args:
        model: float; owned by the caller, left as it is.
        values: FX node name -> ONNX value, as `export_onnx` found them.
        folds: see `Storage`.
    Raises:
        RuntimeFailure: ``export_failed`` where a layer cannot be found in the file.
    """
    result = at_least(model, _opset(quantization))
    writer = _Writer(result.graph, values, quantization, folds=folds)
    writer.write()
    sweep(result.graph)
    if any(node.domain == MICROSOFT for node in result.graph.node):
        result.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return result


def _opset(quantization: Quantization) -> int:
    """The first ONNX version that has the types which the file needs."""
    weights = quantization.weights.values()
    four = any(weight.bits == 4 for weight in weights)
    wide = any(grid.bits > KERNEL_BITS for grid in quantization.activations.values())
    eight = any(weight.values.dtype == torch.float8_e4m3fn for weight in weights)
    packed = any(is_packed(weight) for weight in weights)
    return 21 if four or wide or packed else 19 if eight else 13


class _Writer:
    """Rewires the graph; nodes that come out are put in order at the end.

    Attributes:
        before: id of a node -> nodes to put in front of it.
        after: value name -> nodes to put behind the node that makes it.
    """

    def __init__(
        self, graph: GraphProto, values: Mapping[str, str], quantization: Quantization, *, folds: bool
    ) -> None:
        self.graph, self.quantization = graph, quantization
        self.values = dict(values)
        # What is inside of one ONNX node, such as a convolution's padding, has no name there and stays in float.
        self.grids = {name: grid for name, grid in quantization.activations.items() if name in values}
        self.nodes = {node.name: node for node in quantization.network.module.graph.nodes}
        self.made_by = producers(graph)
        self.added: list[NodeProto] = []
        self.storage = Storage(graph, self.added, folds=folds)
        self.outputs = {output.name for output in graph.output}

    def write(self) -> None:
        readers = {name: self._readers(name) for name in self.grids}
        self._weights()
        done: set[str] = set()
        owners = {self.quantization.tail(name): name for name in self.quantization.integer}
        for name, grid in self.grids.items():
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
        raw = self.values.get(owner, value) if owner is not None else value
        everyone = owner is not None
        target = f"{value}_dequantized"
        consumers = [node for node in (*self.graph.node, *self.added) if value in node.input] if everyone else readers
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
        module, weights = self.quantization.network.module, self.quantization.weights
        sites = Sites(self.graph, self.made_by, set(self.values.values()))
        recurrent: set[str] = set()
        for node in self.nodes.values():
            path = str(node.target)
            layer = module.get_submodule(path) if node.op == "call_module" else None
            if isinstance(layer, nn.RNNBase) and path not in recurrent:
                recurrent.add(path)
                own = {
                    key.removeprefix(f"{path}."): weights[key] for key in parameter_keys(path, layer) if key in weights
                }
                if own:
                    write_recurrent(self.storage, module, path, own)
            elif isinstance(layer, nn.Embedding) and path in weights:
                if not varies(node):
                    continue  # its rows are a constant of the graph
                write_embedding(self.storage, self._region(node), path, node.name, weights[path])
            elif layer is not None and path in weights:
                self._site(node, sites, weights[path])

    def _site(self, node: fx.Node, sites: Sites, weight: Weight) -> None:
        path = str(node.target)
        site = sites.find(self.values[node.name], tuple(weight.shape))
        if site is None:
            raise RuntimeFailure("export_failed", f"layer {path} has no place in the ONNX graph")
        if node.name in self.quantization.dynamic:
            self._dynamic(path, node.name, site, weight)
            return
        if self.storage.folds and site.node.op_type != "Conv" and blocked(weight):
            self._blocks(path, node.name, site, weight)
            return
        grid = self.grids.get(source_of(node).name)
        kernel = node.name in self.quantization.integer and grid is not None and grid.bits == KERNEL_BITS
        self._layer(path, node.name, site, weight, grid if kernel else None)

    def _layer(self, path: str, call: str, site: Site, weight: Weight, grid: Affine | None) -> None:
        """The stored weight, and where its input is on `grid` an int32 bias."""
        if grid is not None:
            site.node.input[1] = self.storage.kernel_weight(path, call, weight, site.axis)
        else:
            arrange = np.transpose if site.transposed else np.asarray
            site.node.input[1] = self.storage.float_weight(path, call, weight, arrange, site.axis)
        if weight.bias is None:
            return
        reader, index = place_of_bias(site, self.added)
        if grid is None or reader is not site.node:
            reader.input[index] = initializer(self.graph, f"{path}.bias_corrected", weight.bias.numpy())
            return
        scales = weight.scale.numpy() * np.float32(grid.scale)
        bias = self.storage.constant(f"{call}.bias_quantized", integer_bias(weight, grid).numpy())
        scale = self.storage.constant(f"{call}.bias_scale", scalar(scales))
        axis = {"axis": 0} if len(scales) > 1 else {}
        reader.input[index] = self.storage.node("DequantizeLinear", [bias, scale], f"{call}.bias_dequantized", **axis)

    def _blocks(self, path: str, call: str, site: Site, weight: Weight) -> None:
        """ONNX Runtime's kernel for packed weights with a scale to a block: they stay packed in memory too."""
        product = f"{call}.product"
        inputs = [
            site.node.input[0],
            *(self.storage.constant(name, part) for name, part in blocks(path, weight).items()),
        ]
        channels, size = weight.shape
        settings = {"K": size, "N": channels, "bits": weight.bits, "block_size": size // weight.scale.shape[1]}
        self.storage.node(f"{MICROSOFT}::MatMulNBits", inputs, product, **settings)
        self._replace_layer(site, path, call, weight.bias, product)

    def _replace_layer(self, site: Site, path: str, call: str, bias: Tensor | None, product: str) -> None:
        """Let `product` and the bias have the place of the layer in the graph."""
        final = (site.adder or site.node).output[0]
        if bias is not None:
            corrected = initializer(self.graph, f"{path}.bias_corrected", bias.numpy())
            self.added.append(helper.make_node("Add", [product, corrected], [final], name=f"{call}.add_bias"))
        else:
            self.added[-1].output[0] = final
        for old in (site.node, site.adder):
            if old is not None:
                self.graph.node.remove(old)

    def _dynamic(self, path: str, call: str, site: Site, weight: Weight) -> None:
        """DynamicQuantizeLinear, MatMulInteger and the scaling of its int32 result, in the order that
        ONNX Runtime fuses to one kernel."""
        integers = initializer(self.graph, f"{path}.weight_quantized", weight.values.numpy().T)
        scales = initializer(self.graph, f"{path}.weight_scale", scalar(weight.scale.numpy()))
        data, result = site.node.input[0], f"{call}.scaled"
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
        self._replace_layer(site, path, call, weight.bias, result)

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
