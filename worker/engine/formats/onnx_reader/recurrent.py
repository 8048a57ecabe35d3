"""LSTM, GRU and RNN: layers of torch, whose gates come in another order.

ONNX keeps the gates of an LSTM as input, output, forget, cell and those of a GRU as update, reset, hidden; torch as
input, forget, cell, output and reset, update, new. Both have one matrix for the input and one for the state, each
with a bias, so the weights only change places.
"""

from typing import Any, Final

import torch
from torch import Tensor, nn

from worker.engine.formats.onnx_reader.node import Node, Operator
from worker.engine.formats.onnx_reader.values import unsupported

aten = torch.ops.aten

_ORDERS: Final = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_ACTIVATIONS: Final = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"]}


def _recurrent(node: Node) -> Any:
    """Results of shape (time, directions, batch, hidden), then the last states."""
    batch_first, reverse = bool(node.attr("layout", 0)), node.attr("direction", "forward") == "reverse"
    directions = 2 if node.attr("direction", "forward") == "bidirectional" else 1
    module, weights = _module(node, directions)
    x = node.tensor(0)
    if batch_first:
        x = node.call(aten.permute.default, x, [1, 0, 2])
    _check_lengths(node, x)
    if reverse:
        x = node.call(aten.flip.default, x, [0])
    states = [_state(node, index, batch_first) for index in ((5, 6) if node.op == "LSTM" else (5,))]
    result = _run(node, module, weights, x, states)
    y, last = node.build.item(result, 0), node.build.item(result, 1)
    finals = [node.build.item(last, 0), node.build.item(last, 1)] if node.op == "LSTM" else [last]
    time, batch, _ = node.build.shape(y)
    y = node.call(aten.reshape.default, y, [time, batch, directions, node.attr("hidden_size")])
    y = node.call(aten.permute.default, y, [1, 0, 2, 3] if batch_first else [0, 2, 1, 3])
    if reverse:
        y = node.call(aten.flip.default, y, [1 if batch_first else 0])
    if batch_first:
        finals = [node.call(aten.permute.default, state, [1, 0, 2]) for state in finals]
    return y, *finals


def _module(node: Node, directions: int) -> tuple[nn.RNNBase, dict[str, Tensor]]:
    """The empty layer and its weights."""
    hidden, weight, state, bias = node.attr("hidden_size"), node.constant(1), node.constant(2), node.constant(3)
    if weight is None or state is None or hidden is None:
        raise unsupported(f"{node.op} without weights")
    extra = _check(node, directions)
    with torch.device("meta"):
        module: nn.RNNBase = getattr(nn, node.op)(
            weight.shape[2], hidden, bias=bias is not None, bidirectional=directions == 2, **extra
        )
    weights: dict[str, Tensor] = {}
    for direction, suffix in enumerate(("", "_reverse")[:directions]):
        weights[f"weight_ih_l0{suffix}"] = _gates(node, weight, direction)
        weights[f"weight_hh_l0{suffix}"] = _gates(node, state, direction)
        if bias is not None:
            half = bias.shape[1] // 2
            weights[f"bias_ih_l0{suffix}"] = _gates(node, bias, direction, slice(0, half))
            weights[f"bias_hh_l0{suffix}"] = _gates(node, bias, direction, slice(half, None))
    return module, weights


def _gates(node: Node, tensor: Tensor, direction: int, part: slice = slice(None)) -> Tensor:
    """The weights of one direction with their gates in torch's order."""
    order = _ORDERS[node.op]

    def change(t: Tensor) -> Tensor:
        gates = t[direction][part].chunk(len(order))
        return torch.cat([gates[gate] for gate in order]).clone()

    return node.build.derived(tensor, f"{node.op} {direction} {part}", change)


def _check(node: Node, directions: int) -> dict[str, Any]:
    """Refuse what torch's layers cannot do; what they have to be told for the rest."""
    if node.value(7) is not None:
        raise unsupported(f"{node.op} with peepholes")
    if (
        node.attr("clip")
        or node.attr("input_forget", 0)
        or node.attr("activation_alpha")
        or node.attr("activation_beta")
    ):
        raise unsupported(f"{node.op} with clip, coupled gates or activations with parameters")
    if node.op == "GRU" and not node.attr("linear_before_reset", 0):
        raise unsupported("GRU with linear_before_reset=0 (PyTorch writes 1; for Keras build it with reset_after=True)")
    given = [name.lower() for name in node.attr("activations") or []]
    if node.op != "RNN":
        if given and given != _ACTIVATIONS[node.op] * directions:
            raise unsupported(f"{node.op} with the activations {', '.join(given)[:100]}")
        return {}
    kinds = set(given or ["tanh"])
    if len(kinds) > 1 or not kinds <= {"tanh", "relu"}:
        raise unsupported(f"RNN with the activations {', '.join(given)[:100]}")
    return {"nonlinearity": kinds.pop()}


def _check_lengths(node: Node, x: Any) -> None:
    """All sequences have to be as long as the input."""
    if node.value(4) is None:
        return
    lengths, time = node.constant(4), node.build.size(x, 0)
    if lengths is None or not isinstance(time, int) or bool((lengths != time).any()):
        raise unsupported(f"{node.op} with sequences of different lengths")


def _state(node: Node, index: int, batch_first: bool) -> Any:
    if node.value(index) is None:
        return None
    state = node.tensor(index)
    return node.call(aten.permute.default, state, [1, 0, 2]) if batch_first else state


def _run(node: Node, module: nn.RNNBase, weights: dict[str, Tensor], x: Any, states: list[Any]) -> Any:
    """Call the layer; a missing state of two is zeros like the other."""
    if any(state is not None for state in states):
        other = next(state for state in states if state is not None)
        states = [node.call(aten.zeros_like.default, other) if state is None else state for state in states]
        initial = tuple(states) if node.op == "LSTM" else states[0]
        return node.build.layer(module, weights, x, node.origin(1), initial)
    return node.build.layer(module, weights, x, node.origin(1))


OPERATORS: Final[dict[str, Operator]] = dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent)
