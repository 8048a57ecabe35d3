"""How labels go through layers: which of their weights belong to which channel."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from worker.engine.structure.call import Labels, flat, nobody
from worker.engine.structure.labels import along, channels, essential, tie_along, varying
from worker.engine.structure.ties import Ties

_RECURRENT: Final = "they are hidden states of a recurrent layer"
_MIXES: Final = "it computes along another dimension than that of the channels"


@dataclass(frozen=True)
class Record:
    """One dimension of one tensor of a layer.

    Attributes:
        path: of the layer.
        name: of its parameter or buffer.
        role: ``out``, ``in``, ``norm`` or ``parameter``.
        labels: (size,).
    """

    path: str
    name: str
    tensor: Tensor
    dim: int
    role: str
    labels: Tensor


class Records:
    """What is known of all weights, by tensor and dimension: those that layers share are tied.

    Attributes:
        left: path of a layer -> why its outputs stay, where that is not said by a label.
    """

    def __init__(self, ties: Ties) -> None:
        self.ties = ties
        self.left: dict[str, str] = {}
        self.all: dict[tuple[int, str, int], Record] = {}
        self._first: dict[tuple[int, int], Record] = {}

    def add(self, path: str, module: nn.Module, name: str, dim: int, role: str, labels: Tensor) -> None:
        """Note that dimension `dim` of ``module.name`` has `labels`; nothing where it has no such tensor."""
        tensor = getattr(module, name, None)
        if tensor is None:
            return
        record = Record(path, name, tensor, dim, role, labels)
        known = self._first.setdefault((id(tensor), dim), record)
        if known is not record:
            self.ties.tie(known.labels, labels, f"{known.path} and {path} share their weights")
        self.all.setdefault((id(tensor), role, dim), record)

    def fresh(self, tensor: Tensor, dim: int) -> Tensor:
        """Labels of the output channels that `dim` of a weight stands for."""
        return self.ties.fresh((id(tensor), dim), tensor.shape[dim], channel=True)


@dataclass(frozen=True)
class Visit:
    """One call of a layer.

    Attributes:
        labels: of what it reads.
        rest: of its further arguments.
        result: what it computed.
    """

    records: Records
    path: str
    module: nn.Module
    labels: Tensor
    rest: Any
    result: Any

    @property
    def ties(self) -> Ties:
        """Where labels are tied."""
        return self.records.ties

    @property
    def across(self) -> str:
        """Reason for channels that the layer computes with one another."""
        return f"{self.path} computes with all of them"

    def add(self, name: str, dim: int, role: str, labels: Tensor) -> None:
        """Note labels of a tensor of this layer."""
        self.records.add(self.path, self.module, name, dim, role, labels)

    def spread(self, labels: Tensor, dim: int) -> Tensor:
        """The result's labels where they are `labels` along `dim`."""
        shape = [1] * self.result.dim()
        shape[dim] = -1
        return labels.reshape(shape).expand(self.result.shape)


def _linear(visit: Visit) -> Labels:
    weight, last = visit.module.weight, visit.labels.dim() - 1
    out = visit.records.fresh(weight, 0)  # type: ignore[arg-type]
    differ = varying(visit.ties, visit.labels)
    passes = bool(differ) and last not in differ
    read = channels(visit.ties, visit.labels, last, visit.across)
    if passes:  # the input's channels are what it does for each on its own
        visit.ties.freeze(out, _MIXES)
        read = torch.zeros_like(read)
    visit.add("weight", 1, "in", read)
    visit.add("weight", 0, "out", out)
    visit.add("bias", 0, "out", out)
    return visit.labels.narrow(last, 0, 1).expand(visit.result.shape) if passes else visit.spread(out, last)


def _convolution(visit: Visit) -> Labels:
    """Without groups, in groups whose channels are tied by their place, or one channel by itself."""
    module: Any = visit.module
    transposed = module.transposed
    dim = visit.labels.dim() - len(module.kernel_size) - 1
    read = channels(visit.ties, visit.labels, dim, visit.across)
    groups, each = module.groups, module.out_channels // module.groups
    if groups > 1 and groups == module.in_channels:
        out = read.repeat_interleave(each)
        visit.add("weight", 0, "out", read if transposed else out)
        visit.add("weight", 1, "in", torch.zeros(module.weight.shape[1], dtype=torch.int64))
    else:
        inside = read.reshape(groups, -1)
        visit.ties.tie(inside, inside[:1], visit.across)
        one = visit.ties.fresh((id(module.weight), "out"), each, channel=True)
        out = one.repeat(groups)
        visit.add("weight", 0, "in" if transposed else "out", read if transposed else out)
        visit.add("weight", 1, "out" if transposed else "in", one if transposed else inside[0])
    visit.add("bias", 0, "out", out)
    return visit.spread(out, dim)


def _embedding(visit: Visit) -> Labels:
    weight: Any = visit.module.weight
    visit.ties.freeze(essential(visit.labels), visit.across)
    out = visit.records.fresh(weight, 1)
    visit.add("weight", 1, "out", out)
    visit.add("weight", 0, "in", torch.zeros(weight.shape[0], dtype=torch.int64))
    return visit.spread(out, visit.result.dim() - 1)


def _channel_norm(visit: Visit) -> Labels:
    labels = channels(visit.ties, visit.labels, 1, visit.across)
    for name in ("weight", "bias", "running_mean", "running_var"):
        visit.add(name, 0, "norm", labels)
    return visit.labels


def _prelu(visit: Visit) -> Labels:
    return _channel_norm(visit) if visit.module.num_parameters != 1 else visit.labels


def _group_norm(visit: Visit) -> Labels:
    module: Any = visit.module
    if module.num_groups != module.num_channels:
        each = channels(visit.ties, visit.labels, 1, visit.across).reshape(module.num_groups, -1)
        visit.ties.tie(each, each[:1], visit.across)
    return _channel_norm(visit)


def _layer_norm(visit: Visit) -> Labels:
    """The norm is then that of what is left: training makes up for it."""
    module: Any = visit.module
    rank, count = visit.labels.dim(), len(module.normalized_shape)
    first = rank - count
    differ = varying(visit.ties, visit.labels)
    if not any(dim >= first for dim in differ):
        return visit.labels
    main = next(dim for dim in differ if dim >= first)
    tie_along(visit.ties, visit.labels, [dim for dim in range(rank) if dim != main], visit.across)
    for name in ("weight", "bias"):
        visit.add(name, main - first, "norm", along(visit.labels, main))
    return visit.labels


def _recurrent(visit: Visit) -> Labels:
    last = visit.labels.dim() - 1
    read = channels(visit.ties, visit.labels, last, visit.across)
    for name in ("weight_ih_l0", "weight_ih_l0_reverse"):
        visit.add(name, 1, "in", read)
    for labels in flat(visit.rest):
        visit.ties.freeze(essential(labels), _RECURRENT)
    visit.records.left[visit.path] = _RECURRENT
    return nobody(visit.result)


def _passes(visit: Visit) -> Labels:
    return visit.labels


#: Kind of layer -> its rule; the first that fits.
RULES: Final[Mapping[tuple[type[nn.Module], ...], Callable[[Visit], Labels]]] = {
    (nn.Linear,): _linear,
    (nn.modules.conv._ConvNd,): _convolution,
    (nn.Embedding,): _embedding,
    (nn.modules.batchnorm._NormBase,): _channel_norm,
    (nn.GroupNorm,): _group_norm,
    (nn.LayerNorm,): _layer_norm,
    (nn.PReLU,): _prelu,
    (nn.RNNBase,): _recurrent,
    (nn.modules.dropout._DropoutNd, nn.Identity): _passes,
}


def visit(call: Visit) -> Labels:
    """The labels of what a layer computes."""
    for kinds, rule in RULES.items():
        if isinstance(call.module, kinds):
            return rule(call)
    call.ties.freeze(essential(call.labels), call.across)
    return nobody(call.result)
