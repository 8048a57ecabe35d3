"""What a job will come to, told from facts before it runs: sizes of files, memory, time.

The recipe's steps say what they do (`Step.effects`); this goes through them in order. What only weights or data can
tell (a rank by energy, which channels win) is assumed on the side of more memory, and told in the notes.
"""

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from app.recipes.estimate import costs
from app.recipes.estimate.costs import Machine, Samples
from app.recipes.estimate.files import file_bytes, stored_bits
from app.recipes.estimate.layers import LAYERS, Layer, Outline, factorized, narrowed, outline, shallower
from app.recipes.facts import ModelFacts
from app.recipes.methods import Step
from app.recipes.methods.effects import Effects, Factorized, Narrowed, Storage
from app.recipes.recipe import Recipe

__all__ = ["Estimate", "Machine", "Question", "Samples", "estimate"]

#: Shares that are told apart where a budget is kept.
_FINE = 200


@dataclass(frozen=True)
class Question:
    """A job, as far as estimates need it.

    Attributes:
        others: id -> facts of models that steps name.
        file_bytes: of the uploaded model.
    """

    recipe: Recipe
    targets: Sequence[str]
    model: ModelFacts
    samples: Samples
    machine: Machine = field(default_factory=Machine)
    others: Mapping[str, ModelFacts] | None = None
    file_bytes: int | None = None


@dataclass(frozen=True)
class Estimate:
    """What it will come to.

    Attributes:
        sizes: target -> bytes of its file.
        peak_memory_bytes: of the job's processes together.
        run_s: of one attempt.
        largest: index of the step that needs most memory, None: exporting and measuring do.
        notes: what dominates, and what was not known.
    """

    sizes: dict[str, int]
    peak_memory_bytes: int
    run_s: float
    largest: int | None
    notes: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """All artifacts together."""
        return sum(self.sizes.values())


def estimate(question: Question) -> Estimate:
    """What the job will come to."""
    start = model = outline(question.model)
    notes = [] if start.exact else ["the model was checked by an older version: its layers' shapes are guessed"]
    memory, seconds = [], []
    for index, step in enumerate(question.recipe.steps):
        effects = step.effects
        before = model
        model, told = _after(before, step, effects, question)
        notes += [f"step {index + 1}, {step.method}: {note}" for note in told]
        larger = max(before, model, key=lambda one: one.float_bytes)
        memory.append(costs.step_bytes(larger, effects.work, question.samples))
        seconds.append(costs.step_seconds(larger, effects.work, question.samples, question.machine))
    models = (start, model)
    peak = costs.peak_bytes(memory, models, question.targets)
    run = costs.run_seconds(seconds, models, question.targets, question.samples, question.machine)
    exporting = costs.peak_bytes([], models, question.targets)
    largest = memory.index(max(memory)) if peak > exporting else None
    sizes = {target: file_bytes(model, target, _graph_bytes(question, target)) for target in question.targets}
    notes += _dominating(question, largest, sum(seconds) / run, sizes, model)
    return Estimate(sizes, round(peak), run, largest, tuple(dict.fromkeys(notes)))


def _after(model: Outline, step: Step, effects: Effects, question: Question) -> tuple[Outline, list[str]]:
    notes: list[str] = []
    if effects.model is not None:
        facts = (question.others or {}).get(effects.model)
        if facts is None:
            return model, [f"{effects.model} is not known yet; the job's own model stands in for it"]
        model = outline(facts)
    if effects.depth < 1:
        model = shallower(model, effects.depth)
        notes.append("which blocks can go only the network tells; the same share of all layers is assumed")
    renamed = _renamed(question.recipe.steps, step)
    chosen = [renamed or step.layers.matches(layer.name) for layer in model.layers]
    if isinstance(effects.shape, Narrowed):
        model, told = _narrowed(model, effects.shape, chosen)
        notes += told
    elif isinstance(effects.shape, Factorized):
        shape = effects.shape
        if shape.ratio is None and shape.ranks is None:
            notes.append("how far layers can be factorized only their weights tell; none is assumed to become smaller")
        layers = [
            factorized(layer, shape) if there else layer for layer, there in zip(model.layers, chosen, strict=True)
        ]
        more = (shape.parts - 1) * sum(new is not old for new, old in zip(layers, model.layers, strict=True))
        model = replace(model, layers=tuple(layers), calls=model.calls + more)
    if effects.stored is not None:
        model = _stored(model, effects.stored, chosen)
    return model, notes


def _renamed(steps: Sequence[Step], step: Step) -> bool:
    """Whether an earlier step may have given layers other names, so that globs cannot be looked up."""
    earlier = steps[: [id(one) for one in steps].index(id(step))]
    return any(one.renames_layers for one in earlier) and step.layers.include == ("*",)


def _narrowed(model: Outline, shape: Narrowed, chosen: Sequence[bool]) -> tuple[Outline, list[str]]:
    notes = []
    if shape.competing:
        notes.append("channels of all layers compete: how many stay in each only the weights tell")
    if shape.share is not None:
        return narrowed(model, shape.share, shape.round_to, chosen), notes

    def left(share: float) -> float:
        there = narrowed(model, share, shape.round_to, chosen)
        before, after = (model.macs, there.macs) if shape.of == "macs" else (model.parameters, there.parameters)
        return after / before if before else 1.0

    # More channels are more of both, so the largest share that keeps the budget can be found by halving.
    kept = bisect.bisect_right(range(1, _FINE + 1), shape.budget, key=lambda step: left(step / _FINE))
    return narrowed(model, max(kept, 1) / _FINE, shape.round_to, chosen), notes


def _stored(model: Outline, stored: Storage, chosen: Sequence[bool]) -> Outline:
    """The layers that are in float so far, stored."""
    weighted = [index for index, layer in enumerate(model.layers) if layer.kind in LAYERS]
    ends = set() if stored.ends or not weighted else {weighted[0], weighted[-1]}
    stored = _in_budget(model, stored, chosen)
    layers = [
        replace(layer, stored=stored)
        if layer.weights and layer.stored is None and chosen[index] and index not in ends and _pays(layer, stored)
        else layer
        for index, layer in enumerate(model.layers)
    ]
    return replace(model, layers=tuple(layers))


def _in_budget(model: Outline, stored: Storage, chosen: Sequence[bool]) -> Storage:
    """As many bits on average as `total_ratio` leaves, scales and the float rest taken off."""
    if stored.total_ratio is None:
        return stored
    layers = [layer for layer, there in zip(model.layers, chosen, strict=True) if there and layer.weights]
    weights = sum(layer.weight_count for layer in layers)
    scales = sum(stored_bits(layer, replace(stored, bits=0)) for layer in layers)
    rest = 8 * model.float_bytes - 32 * weights
    bits = (8 * model.float_bytes * stored.total_ratio - rest - scales) / max(weights, 1)
    return replace(stored, bits=min(max(bits, 2.0), 8.0))


def _pays(layer: Layer, stored: Storage) -> bool:
    """Whether stored weights are smaller; the engine leaves layers in float whose codebook would not be."""
    return not stored.centroids or stored_bits(layer, stored) < 32 * layer.weight_count


def _graph_bytes(question: Question, target: str) -> int | None:
    """What an uploaded ONNX file holds beside its weights; files for ONNX Runtime are written from its graph."""
    if question.model.format != "onnx" or target != "onnxruntime" or question.file_bytes is None:
        return None
    around = question.file_bytes - 4 * question.model.parameters
    return around if around > 0 else None


def _dominating(
    question: Question, largest: int | None, share: float, sizes: Mapping[str, int], model: Outline
) -> list[str]:
    """What most of the memory, time and size go into."""
    notes = []
    if largest is None:
        notes.append("memory: most of it is for exporting and measuring the files")
    else:
        notes.append(f"memory: most of it is for step {largest + 1}, {question.recipe.steps[largest].method}")
    notes.append(
        f"time: {share:.0%} is for the steps" if share > 0.5 else "time: most of it is for exporting and measuring"
    )
    bare = sum(stored_bits(layer, layer.stored) / 8 for layer in model.layers if layer.stored is not None)
    for target, size in sizes.items():
        if size > 0 and size - bare - model.float_bytes > 0.3 * size:
            notes.append(f"size: much of the file for {target} is its graph, not its weights; it is estimated coarsely")
    return notes
