"""LSTM, GRU and simple RNN calls: the layers whose weights come as one list.

aten's order per layer and direction is ``weight_ih, weight_hh[, bias_ih, bias_hh][, weight_hr]``, which is the
order of `nn.RNNBase._all_weights`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from worker.engine.formats.layers import Path

#: Operator -> module class and where its results are in what the module returns.
RECURRENT: Final[Mapping[str, tuple[Callable[..., nn.RNNBase], tuple[Path, ...], dict[str, Any]]]] = {
    "lstm": (nn.LSTM, ((0,), (1, 0), (1, 1)), {}),
    "gru": (nn.GRU, ((0,), (1,)), {}),
    "rnn_tanh": (nn.RNN, ((0,), (1,)), {"nonlinearity": "tanh"}),
    "rnn_relu": (nn.RNN, ((0,), (1,)), {"nonlinearity": "relu"}),
}


def build(operator: str, arguments: Mapping[str, Any], weights: Sequence[Tensor]) -> nn.RNNBase | None:
    """The empty module for a recurrent call, or None where the weights do not fit one.

    Args:
        operator: a key of `RECURRENT`.
        arguments: of the ``.input`` overload, by schema name.
        weights: the tensors of ``arguments["params"]``.
    """
    cls, _, extra = RECURRENT[operator]
    directions = 2 if arguments["bidirectional"] else 1
    layers = arguments["num_layers"]
    per_layer, rest = divmod(len(weights), max(layers * directions, 1))
    plain = 4 if arguments["has_biases"] else 2
    if rest or per_layer not in (plain, plain + 1) or weights[0].dim() != 2 or weights[1].dim() != 2:
        return None
    hidden = weights[0].shape[0] // {"lstm": 4, "gru": 3}.get(operator, 1)
    if per_layer == plain + 1:
        extra = {**extra, "proj_size": weights[per_layer - 1].shape[0]}
    with torch.device("meta"):
        module = cls(
            weights[0].shape[1],
            hidden,
            num_layers=layers,
            bias=arguments["has_biases"],
            batch_first=arguments["batch_first"],
            dropout=arguments["dropout"],
            bidirectional=arguments["bidirectional"],
            **extra,
        )
    shapes = [tuple(getattr(module, name).shape) for names in module._all_weights for name in names]
    return module if shapes == [tuple(weight.shape) for weight in weights] else None
