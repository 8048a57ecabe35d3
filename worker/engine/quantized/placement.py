"""Where to quantize: decided from the canonical graph by one table of roles.

- A **layer** (convolution, linear) computes on integers: its data input is quantized. A convolution's result leaves
  the integer kernel as integers; a linear layer's does so only where integers are read next, or where the target has
  no other kernel, else as float.
- A ReLU-like node right behind an integer node is **absorbed**: the output grid starts at 0 and clips.
- A **combining** node (add, mul, cat) computes on integers where all it reads is there as integers and its result is
  needed as integers; elsewhere float costs nothing and is more exact.
- A **product** of two activations (matmul, bmm: attention) reads integers where the target has a kernel for it; its
  result is float unless integers are read next.
- A **moving** node (max pool, reshape, ...) only moves numbers: it hands its input's grid on.

Embeddings, recurrent layers and 3-D convolutions are **stored** in few bits and compute in float.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from torch import fx, nn
from torch._ops import OpOverload

from app.recipes.methods import LayerFilter
from worker.engine.network import Network

CONVOLUTIONS: Final = (nn.Conv1d, nn.Conv2d)
LAYERS: Final = (*CONVOLUTIONS, nn.Linear)
Layer = nn.Conv1d | nn.Conv2d | nn.Linear
#: Layers whose weight is stored in few bits, and that compute in float.
STORED: Final[Mapping[str, type[nn.Module]]] = {"conv3d": nn.Conv3d, "embedding": nn.Embedding, "recurrent": nn.RNNBase}
PRODUCTS: Final = frozenset({"matmul", "bmm"})
COMBINING: Final = frozenset({"add", "mul", "cat", "concat"})
MOVING: Final = frozenset(
    [
        "max_pool1d",
        "max_pool2d",
        "flatten",
        "view",
        "reshape",
        "_unsafe_view",
        "permute",
        "transpose",
        "squeeze",
        "unsqueeze",
        "contiguous",
        "clone",
        "dropout",
        "select",
        "slice",
        "Dropout",
        "Identity",
        "unflatten",
    ]
)
#: Bounds of activations that an output grid can absorb; None: read from the call's arguments.
RELU_LIKE: Final[Mapping[str, tuple[float, float] | None]] = {
    "relu": (0.0, float("inf")),
    "relu6": (0.0, 6.0),
    "hardtanh": None,
    "clamp": None,
    "clamp_min": None,
}
#: Layers with weights that have no integer form here, and why.
_NO_KERNEL: Final = "has no integer kernel in the targets"
_WEIGHTED: Final = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
#: Role -> name in `Grid.operators`, where the target decides.
_OPERATORS: Final = {"add": "add", "mul": "mul", "cat": "cat", "concat": "cat", "matmul": "matmul", "bmm": "matmul"}


@dataclass(frozen=True)
class Placement:
    """What `place` decided; names are of FX nodes.

    Attributes:
        integer: nodes that compute on integers.
        values: nodes whose value is quantized -> the node whose grid it shares (itself where it has its own).
        absorbed: node in `integer` -> the ReLU-like node after it.
        layers: paths of the layers that compute on integers, in graph order.
        stored: keys (see `Quantization.weights`) of what is stored in few bits alone, in graph order.
        left: path of a layer that stays in float -> why.
    """

    integer: frozenset[str]
    values: Mapping[str, str]
    absorbed: Mapping[str, str]
    layers: tuple[str, ...]
    stored: tuple[str, ...]
    left: Mapping[str, str]


def operation(module: fx.GraphModule, node: fx.Node) -> str:
    """``conv1`` as ``Conv2d``; ``aten.relu_.default`` as ``relu``."""
    if node.op == "call_module":
        return type(module.get_submodule(str(node.target))).__name__
    if isinstance(node.target, OpOverload):
        return node.target._schema.name.split("::")[1].rstrip("_")
    return str(getattr(node.target, "__name__", node.target))


def source_of(node: fx.Node) -> fx.Node:
    """The value that a layer's call reads."""
    value = node.args[0]
    if not isinstance(value, fx.Node):
        raise TypeError(f"{node} does not read a value")
    return value


def varies(node: fx.Node) -> bool:
    """Whether the node's value depends on the inputs, or is the same for every sample."""
    waiting, seen = [node], {node}
    while waiting:
        current = waiting.pop()
        if current.op == "placeholder":
            return True
        waiting += [value for value in current.all_input_nodes if value not in seen]
        seen.update(current.all_input_nodes)
    return False


def layer_calls(module: fx.GraphModule) -> Iterator[tuple[fx.Node, nn.Module]]:
    """Every call of a module, in graph order."""
    for node in module.graph.nodes:
        if node.op == "call_module":
            yield node, module.get_submodule(str(node.target))


def called(module: fx.GraphModule, paths: Collection[str]) -> list[tuple[str, Layer, list[str]]]:
    """Path, layer and names of its calls, in graph order, of the convolutions and linear layers at `paths`."""
    calls: dict[str, list[str]] = {}
    found: dict[str, Layer] = {}
    for node, layer in layer_calls(module):
        path = str(node.target)
        if isinstance(layer, LAYERS) and path in paths:
            found[path] = layer
            calls.setdefault(path, []).append(node.name)
    return [(path, layer, calls[path]) for path, layer in found.items()]


def relu_bounds(module: fx.GraphModule, node: fx.Node) -> tuple[float, float] | None:
    """The bounds of a ReLU-like node whose lower one is 0, else None."""
    name = operation(module, node)
    if name not in RELU_LIKE or not isinstance(node.args[0], fx.Node):
        return None
    bounds = RELU_LIKE[name]
    if bounds is None:
        defaults: list[Any] = [-1.0, 1.0] if name == "hardtanh" else [None, None]
        given = [*node.args[1:3], *defaults[len(node.args) - 1 :]]
        low = node.kwargs.get("min", node.kwargs.get("min_val", given[0]))
        high = node.kwargs.get("max", node.kwargs.get("max_val", given[1]))
        if not isinstance(low, (int, float)) or not (high is None or isinstance(high, (int, float))):
            return None
        bounds = (float(low), float("inf") if high is None else float(high))
    return bounds if bounds[0] == 0 else None


def place(
    network: Network,
    layers: LayerFilter,
    operators: Collection[str] = ("add", "mul", "cat"),
    stored: Collection[str] = ("conv3d", "embedding", "recurrent"),
    *,
    integer_results: bool = False,
) -> Placement:
    """Decide where `network`, with its batch norms folded, computes on integers.

    Args:
        layers: which layers the step may touch; the rest stays in float.
        operators: what the target computes on integers beside layers (`Grid.operators`).
        stored: the layers of which it stores few bits alone (`Grid.stored`).
        integer_results: every layer returns integers (`Grid.integer_results`), even where they are read as float.
    """
    kinds = tuple(kind for name, kind in STORED.items() if name in stored)
    placing = _Placing(network.module, layers, operators, kinds)
    placing.settle()
    return placing.result(LAYERS if integer_results else CONVOLUTIONS)


def parameter_keys(path: str, layer: nn.Module) -> list[str]:
    """The keys under which a layer's weights are stored: its path, or those of a recurrent layer's matrices."""
    if not isinstance(layer, nn.RNNBase):
        return [path]
    return [f"{path}.{name}" for name, value in layer.named_parameters() if value.dim() == 2]


class _Placing:
    def __init__(
        self,
        module: fx.GraphModule,
        layers: LayerFilter,
        operators: Collection[str],
        stored: tuple[type[nn.Module], ...],
    ) -> None:
        self.module = module
        self.kinds = stored
        self.left: dict[str, str] = {}
        self.paths: dict[str, None] = {}
        self.stored: dict[str, None] = {}
        self.layers: dict[fx.Node, Layer] = {}
        for node, layer in layer_calls(module):
            self._role(node, layer, layers)
        names = {node: operation(module, node) for node in module.graph.nodes}
        offered = {node for node, name in names.items() if _OPERATORS.get(name) in operators}
        self.combining = {node for node in offered if names[node] in COMBINING and self._combines(node)}
        self.products = {node for node in offered if names[node] in PRODUCTS and self._combines(node)}
        self.moving = {node for node, name in names.items() if name in MOVING}

    def _role(self, node: fx.Node, layer: nn.Module, layers: LayerFilter) -> None:
        path = str(node.target)
        if isinstance(layer, _WEIGHTED):
            self.left[path] = f"{type(layer).__name__} {_NO_KERNEL}"
        elif isinstance(layer, (*LAYERS, *STORED.values())) and not layers.matches(path):
            self.left[path] = "left out by the recipe"
        elif isinstance(layer, LAYERS):
            self.layers[node] = layer
            self.paths[path] = None
        elif isinstance(layer, nn.Embedding) and not varies(node):
            self.left.setdefault(path, "it gives the same rows for every sample, which exporters store in its place")
        elif isinstance(layer, self.kinds):
            self.stored.update(dict.fromkeys(parameter_keys(path, layer)))
        elif isinstance(layer, tuple(STORED.values())):
            self.left[path] = f"the target stores no {type(layer).__name__} in few bits"

    def _combines(self, node: fx.Node) -> bool:
        if node.kwargs.get("alpha", 1) != 1:
            return False
        operands = _operands(node)
        return len(operands) > 1 and all(isinstance(v, fx.Node) and v.op != "get_attr" for v in operands)

    def inputs(self, node: fx.Node) -> list[fx.Node]:
        """The data that `node` reads, without weights."""
        operands = node.args[:1] if node in self.moving or node in self.layers else _operands(node)
        return [value for value in operands if isinstance(value, fx.Node)]

    def tail(self, node: fx.Node) -> fx.Node:
        """The ReLU-like node that `node` absorbs, or itself."""
        if node in self.moving or len(node.users) != 1:
            return node
        user = next(iter(node.users))
        return user if relu_bounds(self.module, user) is not None else node

    def needed(self, value: fx.Node) -> bool:
        """Whether some consumer computes on integers."""
        return any(
            (user in self.layers and user.args[0] is value)
            or user in self.combining
            or user in self.products
            or user in self.moving
            for user in value.users
        )

    def available(self) -> set[fx.Node]:
        """Values that are integers whether or not a combining or moving node asks for them."""
        owned = {self.tail(node) for node in (*self.layers, *self.combining, *self.moving)}
        products = {value for node in self.products for value in self.inputs(node)}
        return owned | products | {source_of(node) for node in self.layers}

    def settle(self) -> None:
        """Drop combining and moving nodes until all that remain read integers and are read as integers."""
        changed = True
        while changed:
            available = self.available()
            dropped = {
                node
                for node in self.combining | self.moving
                if not self.needed(self.tail(node)) or not all(value in available for value in self.inputs(node))
            }
            changed = bool(dropped)
            self.combining -= dropped
            self.moving -= dropped

    def result(self, returning: tuple[type[nn.Module], ...]) -> Placement:
        """What was decided; `returning`: the layers whose results are integers whoever reads them."""
        values: dict[str, str] = {}
        absorbed: dict[str, str] = {}
        for node in self.module.graph.nodes:
            tail = self.tail(node)
            if node in self.moving:
                source = source_of(node).name
                values[node.name] = values.setdefault(source, source)
                continue
            if node in self.layers or node in self.combining or node in self.products:
                for value in self.inputs(node):
                    values.setdefault(value.name, value.name)
                if isinstance(self.layers.get(node), returning) or self.needed(tail):
                    values.setdefault(tail.name, tail.name)
                    if tail is not node:
                        absorbed[node.name] = tail.name
        integer = {node.name for node in (*self.layers, *self.combining, *self.products, *self.moving)}
        return Placement(frozenset(integer), values, absorbed, tuple(self.paths), tuple(self.stored), self.left)


def _operands(node: fx.Node) -> list[Any]:
    """What a combining node combines."""
    first = node.args[0] if node.args else ()
    return list(first) if isinstance(first, (list, tuple)) else list(node.args[:2])
