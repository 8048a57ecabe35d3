"""Batch-norm folding: in evaluation a batch norm after a convolution or linear layer is a scaling of its weights.

With ``s = gamma / sqrt(var + eps)``: ``W' = s W`` along the output channels and ``b' = s (b - mean) + beta``
(Jacob et al. 2018, https://arxiv.org/abs/1712.05877, section 3.2).
"""

import copy
from collections import Counter
from typing import Final

import torch
from torch import Tensor, fx, nn

from worker.engine.network import Network

_CONVOLUTIONS: Final = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED: Final = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LAYERS: Final = (*_CONVOLUTIONS, *_TRANSPOSED, nn.Linear)
NORMS: Final = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

#: Where a node comes from in the file: stays that of the layer, whose weights live on.
_LAYER_META: Final = ("onnx_node", "onnx_weight")


def fold_batch_norm(network: Network) -> Network:
    """`network` with the batch norms that directly follow a layer as part of its weights; itself where it has none.

    A pair is folded where the layer has no other consumer and neither module is used twice. The layer's node takes
    over the ``meta`` of the batch norm, except for where its own weight is in the file (``onnx_node``,
    ``onnx_weight``); ``meta["onnx_folded"]`` names the node that went away.
    """
    return fold_and_tell(network)[0]


def fold_and_tell(network: Network) -> tuple[Network, dict[str, tuple[str, ...]]]:
    """`fold_batch_norm`, and path of each layer -> paths of the batch norms that went into it, in their order."""
    if not any(isinstance(part, NORMS) for part in network.module.modules()):
        return network, {}
    pairs: dict[str, tuple[str, ...]] = {}
    module = copy.deepcopy(network.module)
    calls = Counter(str(node.target) for node in module.graph.nodes if node.op == "call_module")
    owners = Counter(id(p) for m in module.modules() for p in m._parameters.values() if p is not None)
    for norm_node in list(module.graph.nodes):
        pair = _pair(module, norm_node, calls)
        if pair is None or any(owners[id(p)] > 1 for m in pair for p in m.parameters()):
            continue
        layer_node = norm_node.args[0]
        _fold(*pair)
        pairs[str(layer_node.target)] = (*pairs.get(str(layer_node.target), ()), str(norm_node.target))
        kept = {key: layer_node.meta[key] for key in _LAYER_META if key in layer_node.meta}
        folded = {"onnx_folded": norm_node.meta["onnx_node"]} if "onnx_node" in norm_node.meta else {}
        dropped = {key: value for key, value in norm_node.meta.items() if key not in _LAYER_META}
        layer_node.meta = {**layer_node.meta, **dropped, **kept, **folded}
        norm_node.replace_all_uses_with(layer_node)
        module.graph.erase_node(norm_node)
    module.delete_all_unused_submodules()
    module.recompile()
    notes = list(network.notes)
    return Network(module, network.inputs, network.outputs, network.format, notes, source=network.source), pairs


def _pair(
    module: fx.GraphModule, node: fx.Node, calls: Counter[str]
) -> tuple[nn.Conv2d | nn.Linear, nn.BatchNorm2d] | None:
    """The layer and the batch norm at `node`, where they can be folded."""
    if node.op != "call_module" or not isinstance(norm := module.get_submodule(str(node.target)), NORMS):
        return None
    source = node.args[0]
    if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) != 1:
        return None
    layer = module.get_submodule(str(source.target))
    if not isinstance(layer, _LAYERS) or norm.running_mean is None:
        return None
    if calls[str(source.target)] > 1 or calls[str(node.target)] > 1:
        return None
    if isinstance(layer, nn.Linear) and source.meta.get("rank") != 2:
        return None  # batch norm of a sequence runs along another dimension than the linear layer
    return layer, norm  # type: ignore[return-value]


@torch.no_grad()
def _fold(layer: nn.Conv2d | nn.Linear, norm: nn.BatchNorm2d) -> None:
    """Fold in double precision; the layer's weights keep their type."""
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a batch norm without running statistics cannot be folded")
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    gamma = norm.weight.double() if norm.affine else torch.ones_like(mean)
    beta = norm.bias.double() if norm.affine else torch.zeros_like(mean)
    scale = gamma / torch.sqrt(variance + norm.eps)
    weight = layer.weight
    bias = layer.bias.double() if layer.bias is not None else torch.zeros_like(mean)
    layer.weight = nn.Parameter(_scaled(layer, scale).to(weight.dtype), requires_grad=weight.requires_grad)
    layer.bias = nn.Parameter(((bias - mean) * scale + beta).to(weight.dtype))


def _scaled(layer: nn.Conv2d | nn.Linear, scale: Tensor) -> Tensor:
    """The weight with every output channel multiplied by its entry of `scale`, shape (channels,)."""
    weight = layer.weight.double()
    if not isinstance(layer, _TRANSPOSED):
        return weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
    grouped = weight.reshape(layer.groups, -1, *weight.shape[1:])  # (groups, in / groups, out / groups, ...)
    factors = scale.reshape(layer.groups, 1, -1, *[1] * (weight.dim() - 2))
    return (grouped * factors).reshape(weight.shape)
