"""How long candidates take: from a table of layers, measured once; finalists are measured whole in their runtime.

A layer is timed in PyTorch at a few numbers of channels that it reads and computes, and interpolated between them
(latency tables as in Cai et al. 2019, ProxylessNAS, https://arxiv.org/abs/1812.00332, section 3.3). What the whole
network takes beyond its layers is shared out by the number of elements that they compute. The table says how times
compare; how long a finalist really takes is measured in the job's first target (`Stopwatch`).
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

from worker.engine.data.samples import Samples
from worker.engine.measure.compare import probe_of
from worker.engine.measure.latency import alternate
from worker.engine.measure.macs import random_inputs
from worker.engine.measure.remote import Remote
from worker.engine.measure.shapes import shapes_of
from worker.engine.network import Network
from worker.engine.quantized.placement import source_of
from worker.engine.search.costs import Costs
from worker.engine.search.space import Genes, Space
from worker.engine.state import Reporter
from worker.engine.structure import Factor
from worker.engine.targets import TARGETS
from worker.engine.targets.floats import Floats

#: Shares of a layer's channels that it is timed at.
_GRID: Final = (0.25, 0.5, 1.0)
#: Seconds that a layer is timed for at each point, and the fewest runs; the median counts.
_SECONDS, _RUNS = 0.01, 5
#: Turns of the measurement of a finalist.
_ROUNDS: Final = 4


@dataclass(frozen=True)
class _Row:
    """One call of a layer.

    Attributes:
        read / made: numbers of channels.
        rest: of the result, apart from its channels.
        times: (3, 3) seconds at the grid's shares of channels made and read; of each kernel size.
    """

    node: str
    path: str
    read: Factor
    made: Factor
    whole: tuple[int, int]
    rest: int
    times: dict[int, NDArray[np.float64]]


class LatencyTable:
    """Times of a network's layers, in seconds for one sample.

    Args:
        reporter: holds the measuring lock while layers are timed.
    """

    def __init__(self, space: Space, reporter: Reporter) -> None:
        self.space = space
        self._known: dict[Any, float] = {}
        network = space.network
        inputs = random_inputs(network, 1)
        shapes = shapes_of(network, 1)
        with torch.no_grad(), reporter.measuring():
            self._rows = [row for node in network.module.graph.nodes if (row := self._row(node, shapes)) is not None]
            whole = _timed(lambda: network.module(*inputs))
        largest = space.largest
        layers, elements = self._layers(largest)
        self._rest = max(whole - layers, 0.0) / max(elements, 1)

    def __call__(self, genes: Genes) -> float:
        """Seconds that a candidate takes."""
        layers, elements = self._layers(genes)
        return layers + self._rest * elements

    def weights(self, costs: Costs) -> dict[str, float]:
        """Node -> seconds for each of its multiply-accumulates, such that they add up for the network as it is."""
        counts = costs.by_node(self.space.largest)
        times = {row.node: float(row.times[max(row.times)][-1, -1]) for row in self._rows}
        # What is no layer of the table costs what layers do on average.
        average = sum(times.values()) / max(sum(counts[node] for node in times), 1)
        each = {node: times[node] / max(count, 1) if node in times else average for node, count in counts.items()}
        factor = self(self.space.largest) / max(sum(each[node] * count for node, count in counts.items()), 1e-12)
        return {node: value * factor for node, value in each.items()}

    def _layers(self, genes: Genes) -> tuple[float, int]:
        """Seconds of all layers, and how many elements they compute."""
        keep, live = self.space.keep(genes), self.space.live(self.space.skipped(genes))
        kernels = self.space.chosen(genes, "kernel")
        seconds, elements = 0.0, 0
        for row in self._rows:
            if row.node in live:
                made, read = row.made(keep), row.read(keep)
                times = row.times[kernels.get(row.path, max(row.times))]
                seconds += _between(times, made / row.whole[0], read / row.whole[1])
                elements += made * row.rest
        return seconds, elements

    def _row(self, node: fx.Node, shapes: Mapping[fx.Node, torch.Size]) -> _Row | None:
        term = self.space.structure.costs.get(node.name)
        if term is None or node.op != "call_module":
            return None
        layer: Any = self.space.network.module.get_submodule(str(node.target))
        if not isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            return None
        shape = tuple(shapes[source_of(node)])
        everything = self.space.structure.everything()
        *sizes, read = term.factors
        made = sizes[-1 if isinstance(layer, nn.Linear) else 1]
        whole = made(everything), read(everything)
        rest = shapes[node].numel() // max(whole[0], 1)
        kernels = [d for d in self.space.decisions if d.kind == "kernel" and d.name == node.target]
        options = kernels[0].options if kernels else (getattr(layer, "kernel_size", (1,))[0],)
        counts = [max(round(whole[0] * share), 1) for share in _GRID]
        times = {
            size: np.array([[self._time(layer, shape, size, count, share) for share in _GRID] for count in counts])
            for size in options
        }
        return _Row(node.name, str(node.target), read, made, whole, rest, times)

    def _time(self, layer: Any, shape: tuple[int, ...], size: int, out: int, share: float) -> float:
        """Seconds of a layer like this one with `out` channels that reads a share of its channels."""
        if isinstance(layer, nn.Linear):
            read = max(round(layer.in_features * share), 1)
            like: nn.Module = nn.Linear(read, out)
            shape = (*shape[:-1], read)
        else:
            like, shape = _convolution(layer, shape, size, out, share)
        key = (repr(like), shape)
        if key not in self._known:
            value = torch.randn(shape)
            self._known[key] = _timed(lambda: like.eval()(value))
        return self._known[key]


def _convolution(
    layer: Any, shape: tuple[int, ...], size: int, out: int, share: float
) -> tuple[nn.Module, tuple[int, ...]]:
    depthwise = layer.groups == layer.in_channels and layer.groups > 1
    read = max(round(layer.in_channels // layer.groups * share), 1) * layer.groups
    groups = layer.groups
    if depthwise:
        each = layer.out_channels // layer.groups
        groups = read = max(out // each, 1)
        out = groups * each
    out = max(out // groups, 1) * groups
    rings = (layer.kernel_size[0] - size) // 2
    kernel = tuple(k - 2 * rings for k in layer.kernel_size)
    padding = layer.padding
    if not isinstance(padding, str):
        padding = tuple(p - rings * d for p, d in zip(padding, layer.dilation, strict=True))
    like = type(layer)(read, out, kernel, layer.stride, padding, layer.dilation, groups, layer.bias is not None)
    at = len(shape) - len(layer.kernel_size) - 1
    return like, (*shape[:at], read, *shape[at + 1 :])


def _between(times: NDArray[np.float64], made: float, read: float) -> float:
    """Bilinear between the points of the grid; proportional to the first one below it."""
    rows = np.array([np.interp(read, _GRID, row) * min(read / _GRID[0], 1.0) for row in times])
    return float(np.interp(made, _GRID, rows)) * min(made / _GRID[0], 1.0)


def _timed(run: Callable[[], Any]) -> float:
    """Median seconds of a run."""
    with torch.no_grad():
        run()
        taken: list[float] = []
        while len(taken) < _RUNS or sum(taken) < _SECONDS:
            started = time.perf_counter()
            run()
            taken.append(time.perf_counter() - started)
    return float(np.median(taken))


@dataclass
class Stopwatch:
    """Times whole networks in a target, in turns with the one that came in.

    Attributes:
        measured: milliseconds of the network that came in, when it was timed last.
    """

    target: str
    network: Network
    samples: Samples
    folder: Path
    threads: int
    reporter: Reporter
    measured: float = 0.0
    _base: Path | None = field(default=None, repr=False)

    def ratio(self, network: Network, name: str) -> float:
        """What `network` takes over what the one that came in takes, by the medians of single samples.

        Raises:
            RuntimeFailure: a file that cannot be written or run.
        """
        if self._base is None:
            self._base = self._exported(self.network, "whole")
        file = self._exported(network, name)
        probe = probe_of(self.samples).inputs
        with (
            Remote(self.target, self._base, self.threads, self.folder / "run" / "whole") as one,
            Remote(self.target, file, self.threads, self.folder / "run" / name) as other,
        ):
            for remote in (one, other):
                remote.load(probe)
            with self.reporter.measuring():
                times = alternate((one, other), batch=1, rounds=_ROUNDS)
        self.measured = float(np.median(times[0].single_s)) * 1e3
        return float(np.median(times[1].single_s)) * 1e3 / self.measured

    def _exported(self, network: Network, name: str) -> Path:
        return TARGETS[self.target].export_float(Floats(network, self.folder / name)).path
