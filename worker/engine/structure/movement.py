"""Operators that only move elements: they are run on the labels as they are on the values."""

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from worker.engine.structure.call import Call, Labels, Rule, flat, ints
from worker.engine.structure.labels import blank, channels, compact, empty, essential, settle, varying

#: Largest number of labels that are made for one tensor of constants.
MOST_LABELS: Final = 1 << 22

_PLAIN: Final = """
_unsafe_view alias broadcast_tensors broadcast_to cat channel_shuffle chunk column_stack concat concatenate contiguous
detach diagonal expand expand_as flatten flip fliplr flipud hstack meshgrid movedim moveaxis narrow numpy_T permute
pixel_shuffle pixel_unshuffle ravel repeat repeat_interleave reshape reshape_as roll rot90 slice split split_with_sizes
squeeze stack swapaxes swapdims t tensor_split tile transpose unflatten unfold unsqueeze view view_as vstack
"""


def run_on_labels(node: fx.Node, arguments: Mapping[str, Any], labels: Mapping[str, Any]) -> Labels:
    """The node's operator on `labels` where it takes tensors that are moved, on `arguments` elsewhere."""
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    moved = next(name for name in names if flat(labels[name]))
    given = {name: labels[name] if name in (moved, "other") else arguments[name] for name in names}
    # Labels are laid out in memory in another way than values: a view of them may have to be a copy.
    viewed = node.target in (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)
    result = given["self"].reshape(given["size"]) if viewed else node.target(**given)  # type: ignore[operator]
    return pytree.tree_map(lambda part: compact(part) if isinstance(part, Tensor) else part, result)


def moved(call: Call) -> Labels:
    """By the operator itself."""
    return run_on_labels(call.node, call.arguments, call.labels)


def _select(call: Call) -> Labels:
    settle(call.ties, call.data, call.dims(), call.across)
    return moved(call)


def _unbind(call: Call) -> Labels:
    settle(call.ties, call.data, call.dims(), call.across)
    return moved(call)


def _indexed(call: Call) -> Labels:
    """``index``, ``index_select``, ``gather``: what is looked up may not be looked up by channel."""
    chosen = call.arguments.get("indices")
    dims = [at for at, index in enumerate(chosen) if index is not None] if chosen is not None else call.dims()
    settle(call.ties, call.data, dims, call.across)
    for labels in call.tensors[1:]:
        call.ties.freeze(essential(labels), call.across)
    if chosen is not None and any(not ints(index.dtype) for index in chosen if isinstance(index, Tensor)):
        raise TypeError(f"{call.node} is indexed with numbers that are not integers")
    return moved(call)


def _channel_shuffle(call: Call) -> Labels:
    grouped(call, channels(call.ties, call.data, 1, call.across), call.arguments["groups"])
    return moved(call)


def _pixel_shuffle(call: Call) -> Labels:
    factor = call.arguments["upscale_factor"]
    rank = call.data.dim()
    each = channels(call.ties, call.data, rank - 3, call.across).reshape(-1, factor * factor)
    call.ties.tie(each, each[:, :1], call.across)
    return moved(call)


def grouped(call: Call, labels: Tensor, groups: int) -> None:
    """Tie the channels that have the same place in their group."""
    each = labels.reshape(groups, -1)
    call.ties.tie(each, each[:1], call.across)


def _expand(call: Call) -> Labels:
    if not empty(call.data):
        return moved(call)
    sizes = call.written("size" if "size" in call.arguments else "shape")
    before = (1,) * (len(call.shape) - call.data.dim()) + tuple(call.data.shape)
    return _constants(call, [isinstance(size, int) and old == 1 for size, old in zip(sizes, before, strict=True)])


def _filled(call: Call) -> Labels:
    """``zeros``, ``new_full``, ...: along sizes that are written in the call, what is equal can be left out."""
    sizes = call.written("size")
    return _constants(call, [isinstance(size, int) for size in sizes] if isinstance(sizes, (list, tuple)) else [])


def _constants(call: Call, free: list[bool]) -> Labels:
    shape = call.shape
    sizes = [size if ok and size > 1 else 1 for size, ok in zip(shape, free, strict=True)] if free else []
    count = torch.Size(sizes).numel()
    if count == 1 or count > MOST_LABELS:
        return blank(shape)
    return compact(call.ties.fresh(call.node.name, count).reshape(sizes).expand(shape))


def _padded(call: Call) -> Labels:
    """Constants around a value: along the dimensions of space they belong to the channel that they are added to."""
    pads = list(call.arguments["pad"])
    rank, differ = call.data.dim(), varying(call.ties, call.data)
    if call.arguments.get("mode", "constant") != "constant":
        settle(call.ties, call.data, range(rank - len(pads) // 2, rank), call.across)
        differ = ()
    kept = [
        pads[2 * index + side] if rank - 1 - index in differ else 0
        for index in range(len(pads) // 2)
        for side in (0, 1)
    ]
    labels = torch.constant_pad_nd(essential(call.data), kept, 0)
    for dim in set(range(rank)).difference(differ):
        labels = labels.narrow(dim, 0, 1)
    return compact(labels.expand(call.shape))


#: Operator -> its rule. A rule of `RUNS` is the operator itself.
RULES: Final[dict[str, Rule]] = {
    **dict.fromkeys(_PLAIN.split(), moved),
    "select": _select,
    "unbind": _unbind,
    **dict.fromkeys(("index", "index_select", "gather", "_unsafe_index"), _indexed),
    "channel_shuffle": _channel_shuffle,
    "pixel_shuffle": _pixel_shuffle,
    **dict.fromkeys(("expand", "broadcast_to"), _expand),
    **dict.fromkeys(("constant_pad_nd", "pad"), _padded),
}
#: Operators that make constants: asked even where nothing that they read has labels.
MAKERS: Final[dict[str, Rule]] = {
    **dict.fromkeys(("zeros", "ones", "full", "new_zeros", "new_ones", "new_full"), _filled),
    **dict.fromkeys(("expand", "broadcast_to"), _expand),
}
#: Operators whose result is checked against their labels when channels are removed.
RUNS: Final = frozenset(RULES) - {"constant_pad_nd", "pad"}
