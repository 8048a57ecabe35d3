"""Residual blocks that a network still runs without: ``y = x + f(x)`` becomes ``y = x``
(stochastic depth, Huang et al. 2016, https://arxiv.org/abs/1603.09382).
"""

import copy
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import fx
from torch._ops import OpOverload

from worker.engine.measure.shapes import shapes_of
from worker.engine.network import Network
from worker.engine.quantized.placement import operation

_aten = torch.ops.aten
_ADD: Final = (_aten.add.Tensor, _aten.add_.Tensor)


@dataclass(frozen=True)
class Block:
    """A residual block.

    Attributes:
        add: FX node name of the sum.
        shortcut: of the value that goes around the block.
        layers: paths of the layers inside, in graph order.
        kind: what is inside: operations and the shapes of weights; blocks of one kind may stand in for one another.
    """

    add: str
    shortcut: str
    layers: tuple[str, ...]
    kind: str


def blocks(network: Network) -> tuple[Block, ...]:
    """The residual blocks of `network`, in graph order; those with layers in them, whose inside nothing else reads."""
    module = network.module
    shapes = shapes_of(network, 2 if network.batched else 1)
    found = [_block(module, node, shapes) for node in module.graph.nodes if node.target in _ADD]
    return tuple(block for block in found if block is not None)


def _block(module: fx.GraphModule, add: fx.Node, shapes: dict[fx.Node, torch.Size]) -> Block | None:
    one, other = add.args[:2]
    if add.kwargs.get("alpha", 1) != 1 or not isinstance(one, fx.Node) or not isinstance(other, fx.Node):
        return None
    for shortcut, body in ((one, other), (other, one)):
        if shapes.get(shortcut) != shapes.get(add) or shapes.get(add) is None:
            continue
        inside = _reached(shortcut, lambda node: node.users) & (
            _reached(body, lambda node: node.all_input_nodes) | {body}
        )
        leaving = [node for node in inside if any(user not in inside and user is not add for user in node.users)]
        if body not in inside or not all(_is_size_of(node, shortcut) for node in leaving):
            continue
        ordered = [node for node in module.graph.nodes if node in inside]
        layers = [str(node.target) for node in ordered if node.op == "call_module"]
        weighted = [path for path in layers if any(True for _ in module.get_submodule(path).parameters())]
        if weighted:
            words = [operation(module, node) for node in ordered]
            sizes = [tuple(p.shape) for path in layers for p in module.get_submodule(path).parameters()]
            return Block(add.name, shortcut.name, tuple(layers), f"{words} {sizes}")
    return None


def _reached(start: fx.Node, step: Callable[[fx.Node], Iterable[fx.Node]]) -> set[fx.Node]:
    """The nodes that `step` leads to from `start`, which is not among them."""
    found: set[fx.Node] = set()
    waiting = list(step(start))
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += step(node)
    return found


def _is_size_of(node: fx.Node, value: fx.Node) -> bool:
    """Whether the node is a size of `value`, or computed from one."""
    sized = False
    while node is not value and node.op == "call_function" and len(node.all_input_nodes) == 1:
        sized = node.target is _aten.sym_size.int
        if isinstance(node.target, OpOverload) and not sized:
            return False
        node = node.all_input_nodes[0]
    return sized and node is value


def skip(network: Network, left_out: Collection[str]) -> Network:
    """`network` without the blocks whose sums are the nodes `left_out`; itself where there are none."""
    chosen = [block for block in blocks(network) if block.add in left_out]
    if not chosen:
        return network
    module = copy.deepcopy(network.module)
    nodes = {node.name: node for node in module.graph.nodes}
    for block in reversed(chosen):  # a later one may go around to the sum of an earlier one
        nodes[block.add].replace_all_uses_with(nodes[block.shortcut])
    # Attention counts as random, for its dropout; nothing here is worth keeping for what it does beside its result.
    module.graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))
    module.delete_all_unused_submodules()
    module.recompile()
    return replace(network, module=module, source=None)


def periods(found: Sequence[Block]) -> list[tuple[Block, ...]]:
    """Blocks that repeat as one: attention and the feed-forward part behind it, in each layer of a transformer."""
    kinds = [block.kind for block in found]
    for period in range(1, len(kinds) // 2 + 1):
        if len(kinds) % period == 0 and all(kinds[i] == kinds[i - period] for i in range(period, len(kinds))):
            return [tuple(found[start : start + period]) for start in range(0, len(kinds), period)]
    return [(block,) for block in found]


def thinned(found: Sequence[Block], share: float) -> list[Block]:
    """The blocks to leave out so that `share` of them stays, evenly spread, the first among them.

    (DistilBERT takes every other layer: Sanh et al. 2019, https://arxiv.org/abs/1910.01108, section 3.)
    """
    groups = periods(found)
    kept = max(round(share * len(groups)), 1)
    stays = {index * len(groups) // kept for index in range(kept)}
    return [block for index, group in enumerate(groups) if index not in stays for block in group]
