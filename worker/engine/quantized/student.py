"""The network that trains under quantization: its own layers in a graph with fake quantization around them."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import fx, nn

from worker.engine.formats.fold import NORMS, fold_and_tell, fold_batch_norm
from worker.engine.network import Network
from worker.engine.quantized.affine import Affine
from worker.engine.quantized.fake import insert_reads, put
from worker.engine.quantized.form import Quantization, Weight, bias_beside, original, stored_in
from worker.engine.quantized.learned import LearnedGrid
from worker.engine.quantized.placement import LAYERS, Layer, Placement, layer_calls, source_of
from worker.engine.quantized.trained import PlainLayer, TrainedLayer

#: Makes what trains of a layer at a path, and the batch norms behind it.
Maker = Callable[[str, Layer, Sequence[nn.Module]], TrainedLayer]


@dataclass(frozen=True)
class Start:
    """Where training starts.

    Attributes:
        activations: FX node name -> grid, of the values that have a grid of their own.
        held: weights that are stored already and do not train (see `Quantization.weights`): embeddings, recurrent
            and 3-D layers, and what an earlier step has quantized.
        make: what trains in place of a layer.
        learned: whether the steps of activations are trained.
    """

    activations: Mapping[str, Affine]
    held: Mapping[str, Weight]
    make: Maker
    learned: bool = False

    def absorbed(self, placement: Placement) -> dict[str, str]:
        """The ReLU-like nodes of `placement` that a grid which starts at 0 makes superfluous."""
        grids = {name: self.activations[source] for name, source in placement.values.items()}
        return {node: tail for node, tail in placement.absorbed.items() if grids[tail].range[0] >= 0}


@dataclass(frozen=True)
class Student:
    """A network in training.

    Attributes:
        network: the float network with its batch norms; its layers are the ones that train.
        module: the same layers in the graph without the folded batch norms, with fake quantization.
        layers: path of a layer -> what trains in its place.
        grids: FX node name -> learned grid.
        placement: where integers are used.
        start: where training started.
    """

    network: Network
    module: fx.GraphModule
    layers: Mapping[str, TrainedLayer]
    grids: Mapping[str, LearnedGrid]
    placement: Placement
    start: Start

    @property
    def zero_points(self) -> dict[str, int]:
        """FX node name -> zero point, of the values that have a grid."""
        return {name: grid.zero_point for name, grid in self.grids.items()}

    def settle(self, frozen: bool) -> None:
        """Train mode; batch norms on the statistics of the batch, or on their own (`frozen`)."""
        self.module.train()
        for part in self.module.modules():
            if isinstance(part, NORMS):
                part.train(not frozen)


def make_student(network: Network, placement: Placement, start: Start) -> Student:
    """Put learned quantizers into a copy of `network`.

    Args:
        network: float, with or without batch norms.
        placement: of the network with its batch norms folded.
    """
    working = replace(network, module=copy.deepcopy(network.module))
    folded, norms = fold_and_tell(working)
    module = copy.deepcopy(folded.module).requires_grad_(False)
    for key, weight in start.held.items():
        put(module, key, weight.dequantized(), weight.bias)
    layers = _own_layers(module, working.module, norms, placement, start)
    grids: dict[str, LearnedGrid] = {}

    def read(value: fx.Node) -> fx.Node:
        grids[value.name] = LearnedGrid(start.activations[value.name], start.learned)
        name = f"grid_{len(grids)}"
        module.add_module(name, grids[value.name])
        return module.graph.call_module(name, (value,))

    # Values that only move keep their source's grid: rounding them once more would change nothing.
    insert_reads(
        module.graph,
        Quantization(folded, {}, start.activations, placement.integer, start.absorbed(placement)),
        read,
    )
    module.delete_all_unused_submodules()
    module.graph.lint()
    module.recompile()
    return Student(working, module, layers, grids, placement, start)


def _own_layers(
    module: fx.GraphModule,
    working: fx.GraphModule,
    norms: Mapping[str, tuple[str, ...]],
    placement: Placement,
    start: Start,
) -> dict[str, TrainedLayer]:
    """Let `module` call the layers of `working`, under new names; those that are held stay as they are."""
    held = {id(stored_in(module, key)[0]) for key in start.held}
    fixed = {id(p) for key in start.held for p in stored_in(working, key)[0].parameters()}
    learned: dict[str, TrainedLayer] = {}
    made: dict[str, str] = {}
    for node, old in list(layer_calls(module)):
        path = str(node.target)
        if id(old) in held:
            continue
        if path not in made:
            made[path] = f"layer_{len(made)}"
            layer: Any = working.get_submodule(path)
            behind = [working.get_submodule(name) for name in norms.get(path, ())]
            for parameter in nn.ModuleList([layer, *behind]).parameters():
                parameter.requires_grad_(parameter.is_floating_point() and id(parameter) not in fixed)
            if path in placement.layers:
                layer = learned[path] = start.make(path, layer, behind)
            elif behind:
                layer = PlainLayer(layer, *behind)
            module.add_module(made[path], layer)
        node.target = made[path]
    return learned


def graduate(student: Student) -> tuple[Network, Quantization]:
    """The trained float network with its batch norms folded, and its quantization; both on CPU."""
    student.module.to("cpu")
    network = student.network.to("cpu")
    network.module.eval().zero_grad()
    folded = fold_batch_norm(network)
    # What is written back into the user's own file are layers, with the batch norms that were folded into them.
    alone = any(isinstance(part, NORMS) for part in folded.module.modules())
    folded = replace(folded, source=folded.source if _only_layers_train(student) and not alone else None)
    own = {name: grid.grid() for name, grid in student.grids.items()}
    start, placement = replace(student.start, activations=own), student.placement
    activations = {name: own[source] for name, source in placement.values.items()}
    weights: dict[str, Weight] = {}
    for node, layer in layer_calls(folded.module):
        path = str(node.target)
        if path in student.layers and path not in weights and isinstance(layer, LAYERS):
            grid = activations.get(source_of(node).name)
            scale = 0.0 if grid is None else grid.scale
            weights[path] = student.layers[path].stored(
                original(folded.module, path), bias_beside(layer, "weight"), scale
            )
    stored = {key: start.held[key] for key in placement.stored}
    form = Quantization(folded, {**weights, **stored}, activations, placement.integer, start.absorbed(placement))
    return folded, form


def _only_layers_train(student: Student) -> bool:
    """Whether nothing changed but what can be written back into the file that the network was read from."""
    return all(
        isinstance(part, (*LAYERS, *NORMS, TrainedLayer, LearnedGrid, PlainLayer, nn.ModuleList, fx.GraphModule))
        or not any(parameter.requires_grad for parameter in part.parameters(recurse=False))
        for part in student.module.modules()
    )


def narrowed(form: Quantization, placement: Placement, signed: bool) -> Quantization:
    """The same numbers for a target that uses integers in fewer places, or other integers.

    Args:
        form: of a placement that covers `placement`.
        signed: whether activations are stored in signed integers; a grid of the other kind is shifted.
    """
    activations = {name: shifted(form.activations[name], signed) for name in placement.values}
    return Quantization(
        network=form.network,
        weights={key: form.weights[key] for key in (*placement.layers, *placement.stored)},
        activations=activations,
        integer=placement.integer,
        absorbed={node: tail for node, tail in placement.absorbed.items() if activations[tail].range[0] >= 0},
    )


def shifted(grid: Affine, signed: bool) -> Affine:
    """The grid on signed or unsigned integers; it stands for the same numbers."""
    if (grid.low < 0) == signed:
        return grid
    middle = (grid.high - grid.low + 1) // 2
    move = -middle if signed else middle
    return Affine(grid.scale, grid.zero_point + move, grid.low + move, grid.high + move)
