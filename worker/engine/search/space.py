"""What a search may choose: how many channels layers keep, which residual blocks stay, how large kernels are.

A candidate is a tuple of genes, one for each decision: the index of an option, of which the last is the network as it
is. Of a family's units the most important ones stay, so that narrower candidates lie inside wider ones and share
their weights (Cai et al. 2020, Once-for-All, https://arxiv.org/abs/1908.09791, section 3.2).
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from app.recipes.methods import SearchArchitecture
from worker.engine.network import Network
from worker.engine.structure import Family, Keep, Structure, analyse, remove
from worker.engine.structure.blocks import Block, blocks, skip
from worker.engine.structure.importance import magnitude

Genes = tuple[int, ...]
_CONVOLUTIONS: Final = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
#: Kernels shrink no further.
_SMALLEST_KERNEL: Final = 3

#: Sets of skipped blocks that are remembered, at most: each step of a training draws new ones.
_KNOWN: Final = 256


@dataclass(frozen=True)
class Decision:
    """One gene.

    Attributes:
        kind: ``width``, ``depth`` or ``kernel``.
        name: path of the layer; of a block, the FX node name of its sum.
        options: units that stay; 0 or 1; kernel sizes; ascending, the last is the network as it is.
        layers: those that compute the channels, those in the block, or the convolution.
        family: of a width.
        order: of a width: (units,) numbers of the family's units, the most important first.
    """

    kind: str
    name: str
    options: tuple[int, ...]
    layers: tuple[str, ...]
    family: Family | None = None
    order: NDArray[np.int64] | None = None

    @property
    def last(self) -> int:
        """The gene of the network as it is."""
        return len(self.options) - 1


class Space:
    """All candidates inside `network`.

    Attributes:
        decisions: what there is to choose.
        blocks: the residual blocks that depth decisions are about, by the name of their sum.
    """

    def __init__(self, network: Network, structure: Structure, decisions: Sequence[Decision]) -> None:
        self.network, self.structure = network, structure
        self.decisions = tuple(decisions)
        names = {decision.name for decision in decisions if decision.kind == "depth"}
        self.blocks: Mapping[str, Block] = {block.add: block for block in blocks(network) if block.add in names}
        self._live: dict[frozenset[str], frozenset[str]] = {}

    @property
    def largest(self) -> Genes:
        """The network as it is."""
        return tuple(decision.last for decision in self.decisions)

    @property
    def smallest(self) -> Genes:
        """The least of everything."""
        return (0,) * len(self.decisions)

    def without(self, dropped: Iterable[Decision]) -> "Space":
        """The same without some decisions."""
        gone = {(decision.kind, decision.name) for decision in dropped}
        return Space(self.network, self.structure, [d for d in self.decisions if (d.kind, d.name) not in gone])

    def chosen(self, genes: Genes, kind: str) -> dict[str, int]:
        """Name -> option, of the decisions of a kind."""
        pairs = zip(self.decisions, genes, strict=True)
        return {decision.name: decision.options[gene] for decision, gene in pairs if decision.kind == kind}

    def skipped(self, genes: Genes) -> frozenset[str]:
        """Names of the sums whose blocks are left out."""
        return frozenset(name for name, stays in self.chosen(genes, "depth").items() if not stays)

    def keep(self, genes: Genes) -> Keep:
        """The units that stay."""
        keep = self.structure.everything()
        for decision, gene in zip(self.decisions, genes, strict=True):
            if decision.family is not None and decision.order is not None:
                keep[decision.family.units] = False
                keep[decision.order[: decision.options[gene]]] = True
        return keep

    def live(self, skipped: frozenset[str]) -> frozenset[str]:
        """Names of the nodes that results still depend on without some blocks."""
        if skipped not in self._live:
            if len(self._live) >= _KNOWN:
                self._live.clear()
            nodes = {node.name: node for node in self.network.module.graph.nodes}
            found: set[str] = set()
            waiting = [name for name, node in nodes.items() if node.op in ("output", "placeholder")]
            while waiting:
                name = waiting.pop()
                while name in skipped:
                    name = self.blocks[name].shortcut
                if name not in found:
                    found.add(name)
                    waiting += [source.name for source in nodes[name].all_input_nodes]
            self._live[skipped] = frozenset(found)
        return self._live[skipped]

    def canonical(self, genes: Genes) -> Genes:
        """One form for candidates that are the same network: what lies in a block that is left out is as it was."""
        skipped = self.skipped(genes)
        if not skipped:
            return genes
        live = self.live(skipped)
        there = {str(node.target) for node in self.network.module.graph.nodes if node.name in live}

        def matters(decision: Decision) -> bool:
            if decision.kind == "depth":  # of a block inside another one that is left out
                return decision.name in live or self.live(skipped - {decision.name}) != live
            return any(layer in there for layer in decision.layers)

        pairs = zip(self.decisions, genes, strict=True)
        return tuple(gene if matters(decision) else decision.last for decision, gene in pairs)

    def materialise(self, network: Network, genes: Genes) -> Network:
        """The candidate as a network of its own.

        Args:
            network: this space's, or a copy of it with other weights; it is not changed.
        """
        keep = self.keep(genes)
        smaller = network if bool(keep.all()) else remove(network, self.structure, keep)
        smaller = skip(smaller, self.skipped(genes))
        there = {str(node.target) for node in smaller.module.graph.nodes if node.op == "call_module"}
        sizes = {name: size for name, size in self.chosen(genes, "kernel").items() if name in there}
        smaller = cropped(smaller, sizes)
        return replace(smaller, module=copy.deepcopy(smaller.module)) if smaller is network else smaller

    def describe(self, genes: Genes) -> dict[str, Any]:
        """What the user sees of a candidate: ``widths`` and ``kernels`` by layer, the layers of ``skipped`` blocks."""
        skipped = self.skipped(genes)
        gone = {layer for name in skipped for layer in self.blocks[name].layers}
        pairs = [*zip(self.decisions, genes, strict=True)]
        widths = {
            layer: decision.options[gene] * decision.family.each
            for decision, gene in pairs
            if decision.family is not None
            for layer in decision.layers
            if layer not in gone
        }
        kernels = {name: size for name, size in self.chosen(genes, "kernel").items() if name not in gone}
        return {
            "widths": widths,
            **({"kernels": kernels} if kernels else {}),
            "skipped": [list(self.blocks[name].layers) for name in sorted(skipped)],
        }


def make_space(network: Network, step: SearchArchitecture) -> Space:
    """What `step` may choose in `network`."""
    structure = analyse(network)
    scores = magnitude(network, structure)
    decisions = [
        *_widths(structure, step, scores),
        *(_depths(network, step) if step.depth else ()),
        *(_kernels(network, step) if step.kernels else ()),
    ]
    return Space(network, structure, decisions)


def _widths(structure: Structure, step: SearchArchitecture, scores: NDArray[np.float64]) -> list[Decision]:
    found = []
    for family in structure.families:
        if not all(step.layers.matches(layer) for layer in family.layers):
            continue
        options = {len(family)}
        for share in step.widths:
            channels = max(round(share * family.width / step.round_to), 1) * step.round_to
            options.add(min(max(round(channels / family.each), 1), len(family)))
        order = (family.start + np.argsort(-scores[family.units], kind="stable")).astype(np.int64)
        if len(options) > 1:
            found.append(Decision("width", family.layers[0], tuple(sorted(options)), family.layers, family, order))
    return found


def _depths(network: Network, step: SearchArchitecture) -> list[Decision]:
    return [
        Decision("depth", block.add, (0, 1), block.layers)
        for block in blocks(network)
        if all(step.layers.matches(layer) for layer in block.layers)
    ]


def _kernels(network: Network, step: SearchArchitecture) -> list[Decision]:
    found = []
    for path in dict.fromkeys(str(n.target) for n in network.module.graph.nodes if n.op == "call_module"):
        layer: Any = network.module.get_submodule(path)
        if not isinstance(layer, _CONVOLUTIONS) or not step.layers.matches(path):
            continue
        size = layer.kernel_size[0]
        rings = (size - _SMALLEST_KERNEL) // 2
        if size % 2 == 0 or rings < 1 or set(layer.kernel_size) != {size} or layer.padding_mode != "zeros":
            continue
        while rings and not _pads(layer, rings):
            rings -= 1
        if rings:
            found.append(Decision("kernel", path, tuple(range(size - 2 * rings, size + 1, 2)), (path,)))
    return found


def _pads(layer: Any, rings: int) -> bool:
    """Whether the padding can shrink with the kernel, so that the result keeps its place."""
    if isinstance(layer.padding, str):
        return bool(layer.padding == "same")
    return all(pad >= rings * by for pad, by in zip(layer.padding, layer.dilation, strict=True))


def cropped(network: Network, sizes: Mapping[str, int]) -> Network:
    """`network` with the convolutions' kernels cut to their centres; itself where they all have these sizes."""
    changed = {p: s for p, s in sizes.items() if network.module.get_submodule(p).kernel_size[0] != s}  # type: ignore[index]
    if not changed:
        return network
    module = copy.deepcopy(network.module)
    for path, size in changed.items():
        layer: Any = module.get_submodule(path)
        rings = (layer.kernel_size[0] - size) // 2
        layer.weight = nn.Parameter(centre(layer.weight.detach(), rings).clone(), layer.weight.requires_grad)
        layer.kernel_size = (size,) * len(layer.kernel_size)
        if not isinstance(layer.padding, str):
            layer.padding = tuple(p - rings * d for p, d in zip(layer.padding, layer.dilation, strict=True))
        pads = layer.padding if not isinstance(layer.padding, str) else [d * (size - 1) // 2 for d in layer.dilation]
        layer._reversed_padding_repeated_twice = [pad for pad in reversed(pads) for _ in range(2)]
    return replace(network, module=module, source=None)


def centre(weight: Tensor, rings: int) -> Tensor:
    """A convolution's weight, (out, in, *kernel), without so many outer rings."""
    return weight[(slice(None), slice(None), *(slice(rings, size - rings) for size in weight.shape[2:]))]
