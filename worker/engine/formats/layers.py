"""Which aten calls are layers, and how each becomes its module again.

A rule reads the call's static arguments (stride, eps, ...) and the tensors of its weights, and builds the empty
module; the lift then puts the weights in. Modules are built on the meta device: nothing is initialized twice.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, fx, nn

CONVOLUTIONS: Final[Sequence[Callable[..., nn.Module]]] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED: Final[Sequence[Callable[..., nn.Module]]] = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORMS: Final[Mapping[int, Callable[..., nn.Module]]] = {
    2: nn.BatchNorm1d,
    3: nn.BatchNorm1d,
    4: nn.BatchNorm2d,
    5: nn.BatchNorm3d,
}

#: A path into what the module returns: ``(1, 0)`` is ``result[1][0]``; ``()`` is the result itself.
Path = tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """One aten call, its arguments by the names of the operator's schema.

    Attributes:
        arguments: everything, defaults filled in; tensors are FX nodes.
        weights: the tensors of those arguments that are parameters or buffers, by argument name.
        rank: number of dimensions of the first data input; None where it is not known.
    """

    arguments: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    rank: int | None

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]


@dataclass(frozen=True)
class Rule:
    """How calls of one operator become a module.

    Attributes:
        build: makes the module, or None where the call has no module that computes the same.
        data: names of the arguments that the module is called with.
        weights: attribute of the module for each argument that holds a weight.
        results: where the operator's results are in what the module returns; None: it returns one tensor.
        flag: name of the argument that says whether the call was written in training mode.
    """

    build: Callable[[Call], nn.Module | None]
    data: tuple[str, ...]
    weights: Mapping[str, str]
    results: tuple[Path, ...] | None = None
    flag: str | None = None


def _ints(value: object) -> bool:
    """Whether every size is known, none symbolic."""
    return isinstance(value, int) or (isinstance(value, Sequence) and all(isinstance(v, int) for v in value))


def _spread(value: Any, dims: int) -> tuple[int, ...]:
    """aten takes ``[2]`` for ``[2, 2]``."""
    values = tuple(value)
    return values * dims if len(values) == 1 else values


def _convolution(call: Call) -> nn.Module | None:
    weight = call.weights["weight"]
    dims = weight.dim() - 2
    settings = {name: call[name] for name in ("stride", "padding", "dilation")}
    if not 1 <= dims <= 3 or not all(isinstance(v, str) or _ints(v) for v in settings.values()):
        return None
    groups = call["groups"]
    cls = CONVOLUTIONS[dims - 1]
    spread = {name: v if isinstance(v, str) else _spread(v, dims) for name, v in settings.items()}
    return cls(
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        groups=groups,
        bias="bias" in call.weights,
        **spread,
    )


def _transposed_convolution(call: Call) -> nn.Module | None:
    weight = call.weights["weight"]
    dims = weight.dim() - 2
    settings = {name: call[name] for name in ("stride", "padding", "output_padding", "dilation")}
    if not 1 <= dims <= 3 or not all(map(_ints, settings.values())):
        return None
    groups = call["groups"]
    cls = TRANSPOSED[dims - 1]
    return cls(
        weight.shape[0],
        weight.shape[1] * groups,
        tuple(weight.shape[2:]),
        groups=groups,
        bias="bias" in call.weights,
        **{name: _spread(value, dims) for name, value in settings.items()},
    )


def _any_convolution(call: Call) -> nn.Module | None:
    return _transposed_convolution(call) if call["transposed"] else _convolution(call)


def _linear(call: Call) -> nn.Module | None:
    weight = call.weights["weight"]
    if weight.dim() != 2:
        return None
    return nn.Linear(weight.shape[1], weight.shape[0], bias="bias" in call.weights)


def _batch_norm(call: Call) -> nn.Module | None:
    cls = BATCH_NORMS.get(call.rank or 0)
    affine = {"weight", "bias"} <= call.weights.keys()
    if cls is None or "running_mean" not in call.weights or (affine != bool({"weight", "bias"} & call.weights.keys())):
        return None
    return cls(call.weights["running_mean"].shape[0], eps=call["eps"], momentum=call["momentum"], affine=affine)


def _layer_norm(call: Call) -> nn.Module | None:
    if "weight" not in call.weights or not _ints(call["normalized_shape"]):
        return None
    eps = call["eps"]
    return nn.LayerNorm(tuple(call["normalized_shape"]), eps=eps, bias="bias" in call.weights)


def _group_norm(call: Call) -> nn.Module | None:
    if not {"weight", "bias"} <= call.weights.keys():
        return None
    groups = call.arguments.get("num_groups", call.arguments.get("group"))
    return nn.GroupNorm(groups, call.weights["weight"].shape[0], eps=call["eps"])


def _embedding(call: Call) -> nn.Module | None:
    rows, width = call.weights["weight"].shape
    padding = call["padding_idx"]
    return nn.Embedding(
        rows,
        width,
        padding_idx=padding if isinstance(padding, int) and padding >= 0 else None,
        scale_grad_by_freq=call["scale_grad_by_freq"],
        sparse=call["sparse"],
    )


def _prelu(call: Call) -> nn.Module | None:
    return nn.PReLU(call.weights["weight"].numel())


def _dropout(call: Call) -> nn.Module | None:
    return nn.Dropout(call["p"])


_BIAS: Final = {"weight": "weight", "bias": "bias"}
_STATISTICS: Final = {**_BIAS, "running_mean": "running_mean", "running_var": "running_var"}
_SINGLE: Final[tuple[Path, ...]] = ((),)

#: Operator name under ``torch.ops.aten`` -> rule. Recurrent layers take a list of weights: see `recurrent.py`.
RULES: Final[Mapping[str, Rule]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), Rule(_convolution, ("input",), _BIAS)),
    **dict.fromkeys(
        ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
        Rule(_transposed_convolution, ("input",), _BIAS),
    ),
    "convolution": Rule(_any_convolution, ("input",), _BIAS),
    "linear": Rule(_linear, ("input",), _BIAS),
    "batch_norm": Rule(_batch_norm, ("input",), _STATISTICS, flag="training"),
    "_native_batch_norm_legit_no_training": Rule(_batch_norm, ("input",), _STATISTICS, _SINGLE),
    "layer_norm": Rule(_layer_norm, ("input",), _BIAS),
    "native_layer_norm": Rule(_layer_norm, ("input",), _BIAS, _SINGLE),
    "group_norm": Rule(_group_norm, ("input",), _BIAS),
    "native_group_norm": Rule(_group_norm, ("input",), _BIAS, _SINGLE),
    "embedding": Rule(_embedding, ("indices",), {"weight": "weight"}),
    "prelu": Rule(_prelu, ("self",), {"weight": "weight"}),
    "dropout": Rule(_dropout, ("input",), {}, flag="train"),
}


def named_arguments(node: fx.Node, target: object) -> dict[str, Any]:
    """The arguments of `node` by the names of the schema of `target`, with defaults filled in.

    `target` is what the node calls or its plain form: ``dropout_`` names its input ``self``, ``dropout`` ``input``.
    """
    if not isinstance(target, torch._ops.OpOverload):
        raise TypeError(f"{node} does not call an aten overload")
    arguments: dict[str, Any] = {}
    for position, argument in enumerate(target._schema.arguments):
        if position < len(node.args):
            arguments[argument.name] = node.args[position]
        else:
            arguments[argument.name] = node.kwargs.get(argument.name, argument.default_value)
    return arguments
