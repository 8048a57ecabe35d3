"""Goes through a graph whose weights have become smaller and rewrites the sizes that are written in it.

Every value is computed on the way and compared with what its labels say is left of it: its shape, and where elements
are only moved, that they are the ones which should be there. So a graph that comes out is right, or none does.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from worker.engine.formats.layers import named_arguments
from worker.engine.network import Network
from worker.engine.structure.call import alive, flat, normalized
from worker.engine.structure.flow import operator_name
from worker.engine.structure.labels import compact
from worker.engine.structure.model import Keep, Structure, Unfit, Units
from worker.engine.structure.movement import RUNS, run_on_labels


class Mender(fx.Interpreter):
    """Runs `module`, the smaller copy of `network.module`, node by node, and mends it."""

    def __init__(self, network: Network, module: fx.GraphModule, structure: Structure, keep: Keep) -> None:
        super().__init__(module)
        self._structure, self._keep = structure, keep
        self._left: dict[str, Any] = {}  # node -> labels of what is left of its value
        self._old = {node.name: node for node in network.module.graph.nodes}

    @torch.no_grad()
    def run_all(self, inputs: tuple[Tensor, ...]) -> None:
        """Mend everything.

        Raises:
            Unfit: a value that does not come out as its labels say.
        """
        self.run(*inputs)

    def run_node(self, n: fx.Node) -> Any:
        """Mend a node and compute it."""
        if n.op == "output":
            return super().run_node(n)
        before = self._structure.labels[n.name]
        try:
            self._left[n.name] = left = pytree.tree_map(self._subset, before)
        except ValueError as error:
            raise Unfit(n.name, str(error)) from error
        changed = n.op == "call_function" and isinstance(n.target, torch._ops.OpOverload)
        if changed and (alive(before) or any(alive(self._structure.labels[i.name]) for i in n.all_input_nodes)):
            self._mend(n)
        try:
            result = super().run_node(n)
        except (RuntimeError, IndexError, ValueError) as error:
            raise Unfit(n.name, f"at {n.name}: {error}"[:200]) from error
        shapes = [tuple(one.shape) for one in flat(left)]
        if [tuple(one.shape) for one in flat(result)] != shapes:
            raise Unfit(n.name, f"at {n.name}: its shape is another than {shapes}")
        return result

    def _subset(self, labels: Any) -> Any:
        """What is left of labels."""
        if not isinstance(labels, Tensor):
            return labels
        for dim, indices in enumerate(self._structure.kept(labels, self._keep)):
            if len(indices) != labels.shape[dim]:
                labels = labels.index_select(dim, torch.from_numpy(indices))
        return labels

    def _mend(self, node: fx.Node) -> None:
        name = operator_name(node)
        if name in MENDS:
            MENDS[name](Wound(self, node))
        if name in RUNS and alive(self._structure.labels[node.name]):
            self._check_order(node)

    def _check_order(self, node: fx.Node) -> None:
        """Whether the operator, given what is left of its input, makes what is left of its result."""
        arguments = named_arguments(node, node.target)
        labels = fx.map_arg(arguments, lambda n: self._left[n.name])
        if not any(alive(labels[name]) for name in list(labels)[:1]):
            return  # labels that begin here
        values = fx.map_arg(arguments, lambda n: self.env[n])
        try:
            found = run_on_labels(node, values, labels)
        except (RuntimeError, IndexError, ValueError) as error:
            raise Unfit(node.name, f"at {node.name}: {error}"[:200]) from error
        for one, other in zip(flat(found), flat(self._left[node.name]), strict=True):
            if one.shape != other.shape or not torch.equal(compact(one), compact(other)):
                raise Unfit(node.name, f"at {node.name}: channels would come out in another order")

    def now(self, value: Any) -> Any:
        """What an argument comes to in the smaller graph."""
        return fx.map_arg(value, lambda n: self.env[n])

    def sizes(self, node: fx.Node) -> list[list[int]]:
        """Sizes of what is left of each result."""
        return [list(one.shape) for one in flat(self._left[node.name])]

    def kept(self, node: fx.Node, dim: int) -> tuple[int, Units]:
        """The old size of a dimension of a value, and the indices that are left of it."""
        labels = self._structure.labels[node.name]
        return labels.shape[dim], self._structure.kept(labels, self._keep)[dim]


class Wound:
    """A node whose arguments may no longer fit."""

    def __init__(self, mender: Mender, node: fx.Node) -> None:
        self.mender, self.node = mender, node
        self.names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
        self.arguments = named_arguments(node, node.target)

    @property
    def wanted(self) -> list[int]:
        """Sizes that the result should have."""
        return self.mender.sizes(self.node)[0]

    def put(self, **values: Any) -> None:
        """Write arguments where the node has them."""
        for name, value in values.items():
            at = self.names.index(name)
            if at < len(self.node.args):
                self.node.update_arg(at, value)
            else:
                self.node.update_kwarg(name, value)

    def put_sizes(self, name: str, wanted: list[int]) -> None:
        """Let a list of sizes come to `wanted`; -1 and what fits stays as it is written."""
        written = list(self.arguments[name])
        now = self.mender.now(written)
        free = -1 not in now
        for at, (size, want) in enumerate(zip(now, wanted, strict=True)):
            if size in (-1, want):
                continue
            if isinstance(written[at], int):
                written[at] = want
            elif free:
                written[at], free = -1, False
            else:
                raise Unfit(self.node.name, f"at {self.node.name}: two sizes are computed")
        self.put(**{name: written})


def _view(wound: Wound) -> None:
    name = "size" if "size" in wound.arguments else "shape"
    wound.put_sizes(name, wound.wanted)


def _unflatten(wound: Wound) -> None:
    rank = len(wound.wanted) - len(wound.arguments["sizes"]) + 1
    dim = wound.arguments["dim"] % rank
    wound.put_sizes("sizes", wound.wanted[dim : dim + len(wound.arguments["sizes"])])


def _slice(wound: Wound) -> None:
    source = wound.node.args[0]
    start, end, step = (wound.mender.now(wound.arguments[name]) for name in ("start", "end", "step"))
    rank = len(wound.wanted)
    dim = wound.arguments["dim"] % rank
    size, left = wound.mender.kept(source, dim)  # type: ignore[arg-type]
    if len(left) == size or step != 1:
        return
    taken = normalized(size, start, end)
    first = int((left < taken.start).sum())
    wound.put(start=first, end=first + int(((left >= taken.start) & (left < taken.stop)).sum()))


def _narrow(wound: Wound) -> None:
    source, dim = wound.node.args[0], wound.arguments["dim"] % len(wound.wanted)
    size, left = wound.mender.kept(source, dim)  # type: ignore[arg-type]
    if len(left) != size:
        start = wound.mender.now(wound.arguments["start"]) % size
        wound.put(start=int((left < start).sum()), length=wound.wanted[dim])


def _split(wound: Wound) -> None:
    """Parts may have lost different numbers of channels."""
    dim = wound.arguments["dim"]
    source = wound.node.args[0]
    rank = len(wound.wanted)
    size, left = wound.mender.kept(source, dim % rank)  # type: ignore[arg-type]
    if len(left) == size:
        return
    sizes = [part[dim % rank] for part in wound.mender.sizes(wound.node)]
    wound.node.target = torch.ops.aten.split_with_sizes.default
    wound.node.args, wound.node.kwargs = (source, sizes, dim), {}


def _norm(wound: Wound) -> None:
    shape = wound.arguments["normalized_shape"]
    wound.put_sizes("normalized_shape", wound.wanted[len(wound.wanted) - len(shape) :])


def _attention(wound: Wound) -> None:
    """The default scale is that of the features that there were."""
    old, left = wound.mender.kept(wound.arguments["query"], -1)
    if len(left) != old and wound.arguments["scale"] is None:
        wound.put(scale=old**-0.5)


#: Operator -> what its arguments need.
MENDS: Final[Mapping[str, Callable[[Wound], None]]] = {
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "expand", "broadcast_to"), _view),
    **dict.fromkeys(("zeros", "ones", "full", "new_zeros", "new_ones", "new_full"), _view),
    "unflatten": _unflatten,
    "slice": _slice,
    "narrow": _narrow,
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "tensor_split"), _split),
    **dict.fromkeys(("layer_norm", "rms_norm", "native_layer_norm"), _norm),
    "scaled_dot_product_attention": _attention,
}
