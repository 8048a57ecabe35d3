"""A model as estimates see it: its layers by their shapes, and what steps do to these.

The order of the layers is that of the model's calls: of the first and the last one the model's inputs and outputs fix
the outer channels. A batch norm right behind a layer is folded into it by every exporter.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from app.recipes.facts import LayerFacts, ModelFacts
from app.recipes.methods.effects import Factorized, Storage

#: Layers that compute on integers or read stored weights, in every target.
LAYERS: Final = frozenset({"Conv1d", "Conv2d", "Linear"})
RECURRENT: Final = frozenset({"LSTM", "GRU", "RNN"})
#: Kind of a layer that is stored alone -> its name in `Grid.stored`.
TABLES: Final = {"Conv3d": "conv3d", "Embedding": "embedding", **dict.fromkeys(sorted(RECURRENT), "recurrent")}
_FLOAT_BYTES: Final = 4


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        weights: shapes of what can be stored in few bits.
        others: scalars beside them: biases, gains.
        stored: how its weights are stored; None: in float.
    """

    name: str
    kind: str
    weights: tuple[tuple[int, ...], ...]
    others: int
    macs: float
    groups: int = 1
    stored: Storage | None = None

    @property
    def weight_count(self) -> int:
        """Scalars in its weights."""
        return sum(map(math.prod, self.weights))

    @property
    def parameters(self) -> int:
        """All scalars."""
        return self.weight_count + self.others

    @property
    def float_bytes(self) -> int:
        """What it takes in float32."""
        return self.parameters * _FLOAT_BYTES


@dataclass(frozen=True)
class Outline:
    """A model between two steps.

    Attributes:
        loose: parameters that belong to no layer; tied ones count once, so this can be below zero.
        calls: layers and operators, batch norms that exporters fold not counted.
        value_bytes / live_bytes: see `ModelFacts`.
        exact: whether shapes are known, not guessed.
    """

    layers: tuple[Layer, ...]
    loose: int
    calls: int
    value_bytes: float
    live_bytes: float
    exact: bool = True

    @property
    def parameters(self) -> int:
        """All scalars."""
        return max(sum(layer.parameters for layer in self.layers) + self.loose, 0)

    @property
    def macs(self) -> float:
        """Multiply-accumulates of one sample."""
        return sum(layer.macs for layer in self.layers)

    @property
    def float_bytes(self) -> int:
        """What the parameters take in float32."""
        return self.parameters * _FLOAT_BYTES


def outline(facts: ModelFacts) -> Outline:
    """The model as it was uploaded, with its batch norms folded."""
    layers: list[Layer] = []
    folded = 0
    for fact in facts.layers:
        layer = _layer(fact)
        before = layers[-1] if layers else None
        if before is not None and _folds(fact, before):
            bias = before.weights[0][0]
            layers[-1] = replace(before, others=max(before.others, bias))
            folded += 1
        else:
            layers.append(layer)
    loose = facts.parameters - sum(layer.parameters for layer in facts.layers)
    exact = all(fact.shapes or not fact.parameters for fact in facts.layers) and bool(facts.value_bytes)
    values = float(facts.value_bytes) or _guessed_values(facts)
    calls = max(sum(facts.operators.values()) - folded, len(layers), 1)
    return Outline(tuple(layers), loose, calls, values, float(facts.live_bytes) or values / 4, exact)


def storable(layer: Layer, tables: Sequence[str]) -> bool:
    """Whether a target that stores `tables` (`Grid.stored`) can store this layer in few bits."""
    return bool(layer.weights) and (layer.kind in LAYERS or TABLES.get(layer.kind) in tables)


def narrowed(model: Outline, share: float, round_to: int, chosen: Sequence[bool]) -> Outline:
    """The model with a share of the channels that lie between its layers.

    Args:
        chosen: for each layer, whether the step may touch it.
    """
    inner = [index for index, layer in enumerate(model.layers) if layer.weights]
    first, last = (inner[0], inner[-1]) if inner else (0, 0)
    layers = []
    for index, layer in enumerate(model.layers):
        if not chosen[index] or not layer.weights:
            layers.append(layer if not chosen[index] else replace(layer, others=round(layer.others * share)))
            continue
        layers.append(_narrower(layer, share, round_to, inputs=index != first, outputs=index != last))
    return replace(
        model, layers=tuple(layers), value_bytes=model.value_bytes * share, live_bytes=model.live_bytes * share
    )


def factorized(layer: Layer, shape: Factorized) -> Layer:
    """The layer as a product of smaller ones where that is smaller; itself where only its weights would tell."""
    if layer.kind not in LAYERS or layer.groups > 1 or not layer.weights:
        return layer
    weight = layer.weights[0]
    outputs, inputs = weight[0], weight[1] if len(weight) > 1 else 1
    kernel = math.prod(weight[2:])
    if (kernel == 1) != shape.pointwise:
        return layer
    factors = _factors(outputs, inputs, weight[2:], shape)
    count = sum(map(math.prod, factors))
    if not factors or count >= layer.weight_count:
        return layer
    return replace(layer, weights=factors, macs=layer.macs * count / layer.weight_count)


def shallower(model: Outline, share: float) -> Outline:
    """The model with a share of the blocks between its first and its last layer: everything in between, by share."""
    layers = [
        layer
        if index in (0, len(model.layers) - 1) or not layer.weights
        else replace(
            layer,
            weights=tuple((max(1, round(weight[0] * share)), *weight[1:]) for weight in layer.weights),
            others=round(layer.others * share),
            macs=layer.macs * share,
        )
        for index, layer in enumerate(model.layers)
    ]
    return replace(model, layers=tuple(layers), calls=max(1, round(model.calls * share)))


def _layer(fact: LayerFacts) -> Layer:
    if fact.shapes:
        found = [shape for name, shape in fact.shapes.items() if _is_weight(fact.kind, name)]
        weights = tuple(shape for shape in found if len(shape) > 1 and all(shape))
        others = sum(math.prod(shape) for shape in fact.shapes.values()) - sum(map(math.prod, weights))
    elif fact.kind in LAYERS or fact.kind in TABLES:  # an old check: a square matrix is as good a guess as any
        side = max(1, math.isqrt(fact.parameters))
        weights, others = ((side, fact.parameters // side),), fact.parameters % side
    else:
        weights, others = (), fact.parameters
    return Layer(fact.name, fact.kind, weights, others, float(fact.macs), fact.groups)


def _is_weight(kind: str, name: str) -> bool:
    return name == "weight" or kind in RECURRENT


def _folds(fact: LayerFacts, before: Layer) -> bool:
    """Whether `fact` is a batch norm over the channels of the layer before it."""
    if not fact.kind.startswith("BatchNorm") or before.kind not in LAYERS or not before.weights:
        return False
    return fact.parameters in (2 * before.weights[0][0], 0)


def _narrower(layer: Layer, share: float, round_to: int, *, inputs: bool, outputs: bool) -> Layer:
    weights = []
    for weight in layer.weights:
        wide, deep = weight[0], weight[1] if len(weight) > 1 else 1
        new_wide = _kept(wide, share, round_to) if outputs else wide
        new_deep = _kept(deep, share, round_to) if inputs and layer.groups == 1 else deep
        weights.append((new_wide, new_deep, *weight[2:])[: len(weight)])
    left = sum(map(math.prod, weights)) / max(layer.weight_count, 1)
    others = round(layer.others * (weights[0][0] / layer.weights[0][0]))
    groups = layer.groups if layer.groups == 1 else max(1, round(layer.groups * share))
    return replace(layer, weights=tuple(weights), others=others, macs=layer.macs * left, groups=groups)


def _kept(channels: int, share: float, round_to: int) -> int:
    """How many channels stay: the nearest multiple, at least one of them."""
    if channels <= round_to:
        return max(1, round(channels * share)) if round_to == 1 else channels
    return min(channels, max(1, int(channels * share / round_to + 0.5)) * round_to)


def _factors(outputs: int, inputs: int, kernel: tuple[int, ...], shape: Factorized) -> tuple[tuple[int, ...], ...]:
    ones = (1,) * len(kernel)
    taps = math.prod(kernel)
    if shape.ranks is None and shape.ratio is None:
        return ()
    if shape.parts == 2:
        rank = _rank((shape.ratio or 1) * outputs * inputs / (outputs + inputs), shape.round_to)
        return ((rank, inputs, *ones), (outputs, rank, *ones))
    if shape.parts == 3:
        one, two = shape.ranks or _tucker_ranks(outputs, inputs, taps, shape)
        one, two = min(one, inputs), min(two, outputs)
        return ((one, inputs, *ones), (two, one, *kernel), (outputs, two, *ones))
    each = outputs + inputs + sum(kernel)
    rank = shape.ranks[0] if shape.ranks else _rank((shape.ratio or 1) * outputs * inputs * taps / each, shape.round_to)
    return ((rank, inputs, *ones), (rank, sum(kernel)), (outputs, rank, *ones))


def _tucker_ranks(outputs: int, inputs: int, taps: int, shape: Factorized) -> tuple[int, int]:
    """Ranks in the proportion of the channels at which the factors have `ratio` of the layer's weights."""
    goal = (shape.ratio or 1) * outputs * inputs * taps
    a, b = taps * outputs * inputs, inputs * inputs + outputs * outputs
    share = (-b + math.sqrt(b * b + 4 * a * goal)) / (2 * a)
    return _rank(share * inputs, shape.round_to), _rank(share * outputs, shape.round_to)


def _rank(rank: float, round_to: int) -> int:
    whole = round(rank / round_to) * round_to
    return max(1, whole if whole > 0 else int(rank))


def _guessed_values(facts: ModelFacts) -> float:
    """Without a figure: as large as the inputs for each call, which is too much for most models."""
    sizes = [math.prod(dim for dim in spec.shape[1:] if isinstance(dim, int)) for spec in facts.inputs]
    return float(_FLOAT_BYTES * sum(sizes) * max(len(facts.operators), len(facts.layers), 1))
