"""What layers answer, beside what a network returns: which layers of a teacher and a student belong together, and
graphs that return their values too (FitNets, Romero et al. 2015, https://arxiv.org/abs/1412.6550).

Where a student's layer has another number of channels, a linear map of each position, which is learned with the
student and dropped afterwards, brings it to the teacher's (the paper's regressor).
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

import torch
from torch import fx, nn

from worker.engine.measure.macs import count_macs
from worker.engine.measure.shapes import shapes_of
from worker.engine.network import Network
from worker.engine.quantized.placement import layer_calls

_SPATIAL: Final[dict[int, Callable[..., nn.Module]]] = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
_CHANNELS_FIRST: Final = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)
#: Layers whose answers say something of their own; others hand on what these have computed.
_TELLING: Final = (*_CHANNELS_FIRST, nn.Linear, nn.LayerNorm)
#: Layers that are chosen where a network has no stages.
_POINTS: Final = 4
_PROJECTION: Final = "projection"


@dataclass(frozen=True)
class Tap:
    """A layer's answer.

    Attributes:
        node: FX node name of the call.
        path: of the layer.
        shape: of the answer, the batch left out.
        axis: where the channels are in `shape`.
        depth: share of the network's multiply-accumulates that are done by then, 0..1.
        normed: whether a batch norm follows, whose answer says the same on a common scale.
    """

    node: str
    path: str
    shape: tuple[int, ...]
    axis: int
    depth: float
    normed: bool

    @property
    def channels(self) -> int:
        """How many there are."""
        return self.shape[self.axis]

    @property
    def places(self) -> tuple[int, ...]:
        """The shape without the channels: positions in space or time."""
        return self.shape[: self.axis] + self.shape[self.axis + 1 :]


@dataclass(frozen=True)
class Pair:
    """A layer of the teacher and the student's that is to answer alike."""

    teacher: Tap
    student: Tap


def taps(network: Network) -> list[Tap]:
    """What could be compared: the answers of layers in front of the last one, in graph order."""
    module = network.module
    counts = count_macs(network)
    total, done = max(sum(counts.values()), 1), 0
    shapes = shapes_of(network, 1)
    found: list[Tap] = []
    for node, layer in layer_calls(module):
        done += counts.get(str(node.target), counts.get(node.name, 0))
        shape = tuple(shapes.get(node, ())[1:])
        if not isinstance(layer, _TELLING) or not shape:
            continue
        axis = 0 if isinstance(layer, _CHANNELS_FIRST) else len(shape) - 1
        found.append(Tap(node.name, str(node.target), shape, axis, done / total, _normed(module, node)))
    return [tap for tap in found if tap.depth < 1 - 1e-9]


def _normed(module: fx.GraphModule, node: fx.Node) -> bool:
    users = list(node.users)
    return len(users) == 1 and users[0].op == "call_module" and isinstance(
        module.get_submodule(str(users[0].target)), nn.modules.batchnorm._NormBase
    )  # fmt: skip


def pairs(teacher: Sequence[Tap], student: Sequence[Tap], wanted: Collection[str] | None = None) -> list[Pair]:
    """Layers that belong together: those of the same name, else those at the same positions and a similar depth.

    Args:
        wanted: globs of the teacher's layers; None: the last layer of each stage, which is where the number of
            positions changes, or four spread evenly where it never does.
    """
    if wanted is None:
        chosen = _stages([tap for tap in teacher if not tap.normed])
    else:
        chosen = [tap for tap in teacher if any(fnmatchcase(tap.path, glob) for glob in wanted)]
    found = []
    for tap in chosen:
        alike = [
            other
            for other in student
            if (other.places, other.axis, len(other.shape)) == (tap.places, tap.axis, len(tap.shape))
        ]
        same = [other for other in alike if other.path == tap.path]
        free = [other for other in alike if not other.normed]
        best = min(same or free or alike, key=lambda other: abs(other.depth - tap.depth), default=None)
        if best is not None:
            found.append(Pair(tap, best))
    return found


def _stages(found: Sequence[Tap]) -> list[Tap]:
    """The last tap of each stage; of a network with one stage, a few spread evenly."""
    last = {tap.places: tap for tap in found}
    if len(last) > 1:
        return sorted(last.values(), key=lambda tap: tap.depth)
    count = min(_POINTS, len(found))
    return [found[(index + 1) * len(found) // count - 1] for index in range(count)]


def tapped(
    module: fx.GraphModule, nodes: Sequence[str], project: Sequence[nn.Module | None] | None = None
) -> fx.GraphModule:
    """The same layers in a graph that also returns the values of `nodes`, in their order.

    Args:
        project: for each, what its value goes through, under a name of its own; None: nothing.
    """
    graph = fx.Graph()
    values: dict[fx.Node, Any] = {}
    results = graph.graph_copy(module.graph, values)
    result = fx.GraphModule(module, graph)  # takes the layers that the graph calls
    by_name = {old.name: new for old, new in values.items()}
    more = []
    for index, name in enumerate(nodes):
        value = by_name[name]
        projection = None if project is None else project[index]
        if projection is not None:
            result.add_module(f"{_PROJECTION}_{index}", projection)
            value = result.graph.call_module(f"{_PROJECTION}_{index}", (value,))
        more.append(value)
    result.graph.output((*_tuple(results), *more))
    result.recompile()
    return result


def _tuple(results: Any) -> tuple[Any, ...]:
    return tuple(results) if isinstance(results, (tuple, list)) else (results,)


def projections(found: Sequence[Pair], seed: int) -> list[nn.Module | None]:
    """For each pair, the map from the student's channels to the teacher's; None where they are as many."""
    torch.manual_seed(seed)
    return [_projection(pair) for pair in found]


def _projection(pair: Pair) -> nn.Module | None:
    student, teacher = pair.student, pair.teacher
    if student.channels == teacher.channels:
        return None
    if student.axis == len(student.shape) - 1:
        return nn.Linear(student.channels, teacher.channels)
    return _SPATIAL[len(student.shape) + 1](student.channels, teacher.channels, 1)
