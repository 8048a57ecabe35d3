"""All candidates of a space as one network with masks on shared weights.

Units that are not chosen are multiplied by zero where they are computed and where they are read (or, in training,
not computed at all where the graph allows that: `Elastic.slice_where_possible`), a layer norm takes
its statistics over those that are, the rings of a kernel that is not full are zero, and what a residual block adds is
multiplied by its gate: the results are those of the candidate's own network (`faithful` checks that). In each step of
the training the largest, the smallest and random candidates add up their gradients (the sandwich rule of Yu and Huang
2019, https://arxiv.org/abs/1903.05134); half of the random ones lie at the limit, where the search will look. Batch
norms keep the statistics of the largest alone (slimmable networks, Yu et al. 2019, https://arxiv.org/abs/1812.08928,
found that sharing them fails); candidates get their own afterwards.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.nn import functional as F

from app.recipes.methods import LayerFilter
from worker.engine.formats.fold import NORMS
from worker.engine.measure.macs import random_inputs
from worker.engine.network import Network
from worker.engine.search.space import Decision, Genes, Space
from worker.engine.structure import Place
from worker.engine.training.whole import Whole, any_order, whole

#: Relative error up to which the masked network counts as the real one.
_SAME: Final = 1e-3
#: Steps whose candidates are tried before they are computed without masks.
_TRIED: Final = 2
#: Candidates that run in each step of the training.
SANDWICH: Final = 4


class MaskedLayerNorm(nn.LayerNorm):
    """A layer norm over one dimension, (..., channels), of which only some channels count.

    Attributes:
        mask: (channels,): 1 for those that do; shares between 0 and 1 weigh.
    """

    mask: Tensor

    @staticmethod
    def of(norm: nn.LayerNorm) -> "MaskedLayerNorm":
        """With the same parameters, not copies of them."""
        found = MaskedLayerNorm(norm.normalized_shape, norm.eps, norm.elementwise_affine, norm.bias is not None)
        found._parameters.update(norm._parameters)
        like = torch.ones(norm.normalized_shape, device=norm.weight.device)
        found.register_buffer("mask", like, persistent=False)
        return found.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        """Normalize; the layer's own kernel where nothing is masked."""
        mask = self.mask
        if bool((mask == 1).all()) and not mask.requires_grad:
            return F.layer_norm(input, self.weight.shape, self.weight, self.bias, self.eps)
        share = mask / mask.sum()
        centred = input - (input * share).sum(-1, keepdim=True)
        variance = (centred.square() * share).sum(-1, keepdim=True)
        result = centred * torch.rsqrt(variance + self.eps) * self.weight
        return result if self.bias is None else result + self.bias


@dataclass(frozen=True)
class Choice:
    """What runs.

    Attributes:
        keep: (units + 1,) how much of each unit stays; the last is 1, for what is no unit.
        gates: name of a block's sum -> how much of the block stays; those that are not named stay.
        rings: path of a convolution -> mask of its kernel.
        soft: whether shares are between 0 and 1: units then count where they are read, and only there.
    """

    keep: Tensor
    gates: Mapping[str, Tensor] = field(default_factory=dict)
    rings: Mapping[str, Tensor] = field(default_factory=dict)
    soft: bool = False


class Elastic(nn.Module):
    """A network of which `choice` says what of it runs.

    Args:
        network: whose parameters it shares.
    """

    def __init__(self, network: Network, space: Space) -> None:
        super().__init__()
        self.net = any_order(network.module)
        self.space = space
        self._gates = self._add_gates(network.module)
        self._places = _Places(space, self.net)
        for path, part in list(self.net.named_modules()):
            if type(part) is nn.LayerNorm and len(part.normalized_shape) == 1 and part.weight is not None:
                parent, _, name = path.rpartition(".")
                setattr(self.net.get_submodule(parent), name, MaskedLayerNorm.of(part))
        self.sliced = False
        self.choice = self.choice_of(space.largest)

    @property
    def graph(self) -> fx.Graph:
        """What runs."""
        return self.net.graph

    def recompile(self) -> None:
        """After a change of the graph."""
        self.net.recompile()

    def forward(self, *inputs: Tensor) -> Any:
        """The results of what is chosen."""
        if self.sliced and not self.choice.soft:
            try:
                return self._forward_sliced(*inputs)
            except RuntimeError:  # sizes that the candidates tried before do not have: masks take over
                self.sliced = False
        return functional_call(self.net, self._values(self._places.masked(self.choice)), inputs)

    def _forward_sliced(self, *inputs: Tensor) -> Any:
        groups = self._places.groups(self.choice)
        before = {layer: layer.groups for layer in groups}
        for layer, count in groups.items():
            layer.groups = count
        try:
            return functional_call(self.net, self._values(self._places.sliced(self.choice)), inputs)
        finally:
            for layer, count in before.items():
                layer.groups = count

    @torch.no_grad()
    def slice_where_possible(self, inputs: tuple[Tensor, ...], candidates: Sequence[Genes]) -> None:
        """Compute with what is chosen alone, in place of masks, where the graph allows it for these candidates.

        It does where no sizes are written in it: then a narrow candidate also costs less.
        """
        modes = {part: part.training for part in self.modules()}
        self.eval()
        for genes in candidates:
            self.choice = self.choice_of(genes)
            self.sliced = False
            expected = self(*inputs)
            self.sliced = True
            pairs = zip(self(*inputs), expected, strict=True)
            self.sliced = self.sliced and all(_close(one, other) for one, other in pairs)
            if not self.sliced:
                break
        for part, training in modes.items():
            part.training = training

    def choice_of(self, genes: Genes) -> Choice:
        """A candidate."""
        device = next(self.net.parameters()).device
        keep = torch.from_numpy(np.append(self.space.keep(genes), True)).to(device, torch.float32)
        gates = {name: torch.zeros((), device=device) for name in self.space.skipped(genes)}
        rings = {}
        for decision, gene in zip(self.space.decisions, genes, strict=True):
            if decision.kind == "kernel" and gene != decision.last:
                rings[decision.name] = ring_masks(self.net, decision)[gene].to(device)
        return Choice(keep, gates, rings)

    def _add_gates(self, module: fx.GraphModule) -> dict[str, str]:
        """Name of a block's sum -> name of the buffer that its inside is multiplied by."""
        pairs = dict(zip((node.name for node in module.graph.nodes), self.net.graph.nodes, strict=True))
        names = {}
        for index, (name, block) in enumerate(self.space.blocks.items()):
            add, shortcut = pairs[name], pairs[block.shortcut]
            side = 1 if add.args[0] is shortcut else 0
            names[name] = gate = f"gate_{index}"
            self.net.register_buffer(gate, torch.ones(()), persistent=False)
            with self.net.graph.inserting_before(add):
                read = self.net.graph.get_attr(gate)
                body = self.net.graph.call_function(torch.ops.aten.mul.Tensor, (add.args[side], read))
            add.update_arg(side, body)
        self.net.recompile()
        return names

    def _values(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Parameters and buffers that differ from what the network has; `values` are those of widths."""
        choice = self.choice
        for path, mask in choice.rings.items():
            name = f"{path}.weight"
            values[name] = values.get(name, self.net.get_parameter(name)) * mask
        return {**values, **{self._gates[name]: gate for name, gate in choice.gates.items()}}


def ring_masks(module: nn.Module, decision: Decision) -> list[Tensor]:
    """(1, 1, *kernel) for each option of a kernel: ones in the centre, zeros around it."""
    layer: Any = module.get_submodule(decision.name)
    dims = int(layer.weight.dim()) - 2
    size, masks = decision.options[-1], []
    for option in decision.options:
        rings = (size - option) // 2
        mask = torch.zeros((1, 1, *(size,) * dims))
        inside: Any = (..., *(slice(rings, size - rings),) * dims)
        mask[inside] = 1
        masks.append(mask)
    return masks


class _Places:
    """Which masks go to which weights."""

    def __init__(self, space: Space, net: nn.Module) -> None:
        self.net = net
        parameters = dict(net.named_parameters(remove_duplicate=False))
        first: dict[int, str] = {}
        for name, value in parameters.items():
            first.setdefault(id(value), name)
        #: A parameter that layers share -> the name that it is masked under, once for all of them.
        self.names = {name: first[id(value)] for name, value in parameters.items()}
        families = [d.family for d in space.decisions if d.family is not None]
        units = space.structure.units
        self.read = np.zeros(units + 1, np.bool_)
        self.places: list[tuple[Place, Tensor, list[int]]] = []
        self.touched: list[Place] = []  # with the statistics of norms
        for place in space.structure.places:
            chosen = place.units >= 0
            for_some = [((place.units >= f.start) & (place.units < f.stop) & chosen).any() for f in families]
            if any(for_some):
                self.touched.append(place)
            if any(for_some) and place.key in parameters:
                index = torch.from_numpy(np.where(place.units < 0, units, place.units))
                shape = [1] * parameters[place.key].dim()
                shape[place.dim] = -1
                self.places.append((place, index, shape))
                if place.role == "in":
                    self.read[place.units[place.units >= 0]] = True

    def masked(self, choice: Choice) -> dict[str, Tensor]:
        """Parameter -> its value with what does not run taken out; those that stay whole are not named."""
        found: dict[str, Tensor] = {}
        keep = choice.keep
        whole = not choice.soft and bool((keep == 1).all())
        read = torch.from_numpy(self.read).to(keep.device)
        for place, index, shape in self.places if not whole else ():
            index = index.to(keep.device)
            mask = keep[index]
            if choice.soft and place.role != "in":
                mask = torch.where(read[index], torch.ones_like(mask), mask)
            elif not choice.soft and bool((mask == 1).all()):
                continue
            name = self.names[place.key]
            value = found.get(name, self.net.get_parameter(name))
            found[name] = value * mask.reshape(shape)
            norm = self.net.get_submodule(place.path)
            if isinstance(norm, MaskedLayerNorm) and place.name == "weight":
                found[f"{place.path}.mask"] = keep[index]
        return found

    def sliced(self, choice: Choice) -> dict[str, Tensor]:
        """Parameter or buffer -> what is left of it; those that stay whole are not named."""
        found: dict[str, Tensor] = {}
        cut: set[tuple[str, int]] = set()
        for place in self.touched:
            stays, name = self._stays(place, choice), self.names.get(place.key, place.key)
            if bool(stays.all()) or (name, place.dim) in cut:
                continue
            cut.add((name, place.dim))
            value = found.get(name)
            if value is None:
                value = getattr(self.net.get_submodule(place.path), place.name)
            found[name] = value.index_select(place.dim, stays.nonzero()[:, 0].to(value.device))
        return {
            key: value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value
            for key, value in found.items()
        }

    def groups(self, choice: Choice) -> dict[Any, int]:
        """Depthwise convolutions -> how many channels are left."""
        found: dict[Any, int] = {}
        for place in self.touched:
            layer: Any = self.net.get_submodule(place.path)
            depthwise = isinstance(layer, nn.modules.conv._ConvNd) and 1 < layer.groups == layer.in_channels
            if depthwise and place.name == "weight" and place.dim == 0:
                left = int(self._stays(place, choice).sum())
                found[layer] = left if layer.transposed else left * layer.in_channels // layer.out_channels
        return found

    def _stays(self, place: Place, choice: Choice) -> Tensor:
        """(size,) whether an index of the dimension stays."""
        units = torch.from_numpy(np.where(place.units < 0, len(choice.keep) - 1, place.units))
        return choice.keep.cpu()[units] > 0


def _close(one: Tensor, other: Tensor) -> bool:
    """Whether two results are the same but for rounding."""
    if one.shape != other.shape:
        return False
    if not one.is_floating_point() or not one.numel():
        return True
    most = max(float(other.double().abs().max()), _SAME)
    return float((one.double() - other.double()).abs().max()) <= _SAME * most


@dataclass
class Sandwich:
    """A supernet in training, one candidate after the other in each step.

    Attributes:
        whole: the network whose weights train.
        elastic: the same weights, with masks.
        draw: (random numbers) -> candidates of a step, the largest first.
        zero_points: none: nothing is quantized.
    """

    whole: Whole
    elastic: Elastic
    draw: Callable[[np.random.Generator], Sequence[Genes]]
    seed: int
    zero_points: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.module: Any = _Turns(self.elastic)
        self._momenta = {norm: norm.momentum for norm in self.elastic.modules() if isinstance(norm, NORMS)}

    @property
    def network(self) -> Network:
        """The network, whose layers train."""
        return self.whole.network

    def settle(self, frozen: bool) -> None:
        """Train mode; batch norms on the statistics of the batch, or on their own (`frozen`)."""
        self.module.train()
        for norm in self._momenta:
            norm.train(not frozen)

    def start_step(self, share: float) -> None:
        """Draw the candidates of the next step: the same ones for the same seed and share of the training."""
        random = np.random.default_rng((self.seed, int(share * (1 << 40))))
        self.module.turns = [self.elastic.choice_of(genes) for genes in self.draw(random)]
        self.module.turn = 0
        self.module.momenta = self._momenta


class _Turns(nn.Module):
    """Runs the next candidate each time that it is called in training, and the largest otherwise."""

    def __init__(self, elastic: Elastic) -> None:
        super().__init__()
        self.elastic = elastic
        self.turns: list[Choice] = []
        self.turn = 0
        self.momenta: dict[Any, float | None] = {}

    @property
    def graph(self) -> fx.Graph:
        """What runs."""
        return self.elastic.graph

    def recompile(self) -> None:
        """After a change of the graph."""
        self.elastic.recompile()

    def forward(self, *inputs: Tensor) -> Any:
        """The results of the one whose turn it is."""
        if not self.training or not self.turns:
            self.elastic.choice = self.elastic.choice_of(self.elastic.space.largest)
            return self.elastic(*inputs)
        at = self.turn % len(self.turns)
        self.turn += 1
        for norm, momentum in self.momenta.items():
            norm.momentum = momentum if at == 0 else 0.0
        self.elastic.choice = self.turns[at]
        try:
            return self.elastic(*inputs)
        finally:
            for norm, momentum in self.momenta.items():
                norm.momentum = momentum


def sandwich(
    network: Network, space: Space, draw: Callable[[np.random.Generator], Sequence[Genes]], seed: int
) -> Sandwich:
    """A copy of `network`, ready to be trained as a supernet."""
    pupil = whole(network, LayerFilter())
    elastic = Elastic(pupil.network, space)
    random = np.random.default_rng(seed)
    candidates = [space.smallest, *(genes for _ in range(_TRIED) for genes in draw(random))]
    elastic.slice_where_possible(random_inputs(network, 2 if network.batched else 1), candidates)
    return Sandwich(pupil, elastic, draw, seed)


def faithful(network: Network, space: Space) -> tuple[Space, list[Decision]]:
    """The space without the decisions that masks do not imitate exactly, and those."""
    if not space.decisions or _agrees(network, space, space.smallest):
        return space, []
    odd = []
    for index, decision in enumerate(space.decisions):
        genes = tuple(0 if other == index else d.last for other, d in enumerate(space.decisions))
        if not _agrees(network, space, genes):
            odd.append(decision)
    return space.without(odd), odd


@torch.no_grad()
def _agrees(network: Network, space: Space, genes: Genes) -> bool:
    elastic = Elastic(network, space).eval()
    elastic.choice = elastic.choice_of(genes)
    inputs = random_inputs(network, 2 if network.batched else 1)
    pairs = zip(elastic(*inputs), space.materialise(network, genes).module(*inputs), strict=True)
    return all(_close(one, other) for one, other in pairs)
