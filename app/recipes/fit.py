"""Whether data and recipe fit a model, told from the facts of their checks; the engine checks the files again."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Protocol

from app.recipes.errors import RecipeFault
from app.recipes.facts import DatasetFacts, ModelFacts, TensorFacts
from app.recipes.methods import Step
from app.recipes.recipe import Recipe

#: Column of the labels, and the column that serves the input of a one-input model whatever its name.
LABEL, ANY_INPUT = "label", "input"
#: Fewest samples of any dataset that a job uses.
MIN_SAMPLES = 8
#: Layer names that a fault lists.
_LISTED = 10


def further_label(output: str) -> str:
    """The column of the labels of an output other than the first."""
    return f"{LABEL}_{output}"


class Tensorlike(Protocol):
    """An input or output, of facts or of a network that was read."""

    @property
    def name(self) -> str:
        """As columns of data spell it."""

    @property
    def dtype(self) -> str:
        """numpy's name."""

    @property
    def shape(self) -> tuple[int | str, ...]:
        """Sizes; a string names a symbolic dimension."""


class Interface(Protocol):
    """What a model reads and answers; `ModelFacts` and the engine's `Network` both are."""

    @property
    def inputs(self) -> Sequence[Tensorlike]:
        """In order."""

    @property
    def outputs(self) -> Sequence[Tensorlike]:
        """In order."""


def layer_faults(
    recipe: Recipe, model: ModelFacts, others: Mapping[str, ModelFacts], *, pointer: str = "/recipe"
) -> list[RecipeFault]:
    """Globs in ``layers`` of a step that match no layer of the model it works on: the job's, or one that it names.

    Behind a step that gives layers other names, and of models that are not known yet, the engine looks at them.

    Args:
        others: id -> facts of those that are known.
    """
    renames = [index for index, step in enumerate(recipe.steps) if step.renames_layers]
    return [
        fault
        for index, step in enumerate(recipe.steps[: renames[0] + 1] if renames else recipe.steps)
        for fault in _unknown_layers(step, _worked_on(step, model, others), f"{pointer}/steps/{index}/layers")
    ]


def _worked_on(step: Step, model: ModelFacts, others: Mapping[str, ModelFacts]) -> list[str]:
    """Names of the layers that a step's globs are about; none where they are not known."""
    read = [others.get(model_id) for model_id in step.models] or [model]
    return [layer.name for facts in read if facts is not None for layer in facts.layers]


def _unknown_layers(step: Step, names: Sequence[str], pointer: str) -> Iterator[RecipeFault]:
    if not names:
        return
    known = ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
    for side in ("include", "exclude"):
        for position, glob in enumerate(getattr(step.layers, side)):
            if not any(fnmatchcase(name, glob) for name in names):
                detail = f"no layer matches {glob[:100]!r}; the model has {known}"
                yield RecipeFault("unknown_layer", f"{pointer}/{side}/{position}", detail)


def model_faults(
    recipe: Recipe, model: ModelFacts, others: Mapping[str, ModelFacts], *, pointer: str = "/recipe"
) -> list[RecipeFault]:
    """Models that steps name and that cannot stand in for the job's own: they read or answer something else.

    Args:
        others: id -> facts of those that are known.
    """
    return [
        RecipeFault("model_mismatch", f"{pointer}/steps/{index}/{where}", f"{model_id} cannot take its place: {reason}")
        for index, step in enumerate(recipe.steps)
        for where, model_id in step.models_at.items()
        if model_id in others
        for reason in differences(model, others[model_id])
    ]


def differences(model: Interface, other: Interface) -> Iterator[str]:
    """Why `other` cannot stand in for `model`; nothing where it can.

    It must read inputs of the same names (in any order) and give as many outputs, with the same types and shapes; a
    symbolic dimension fits any size. Names of outputs may differ.
    """
    mine, theirs = ({spec.name: spec for spec in one.inputs} for one in (model, other))
    if mine.keys() != theirs.keys():
        yield f"its inputs are {_quoted(theirs)}, those of the job's model {_quoted(mine)}"
    for name in (name for name in mine if name in theirs):
        if not _alike(mine[name], theirs[name]):
            yield f"its input {name!r} is {_told(theirs[name])}, that of the job's model {_told(mine[name])}"
    if len(model.outputs) != len(other.outputs):
        yield f"it has {len(other.outputs)} outputs, the job's model {len(model.outputs)}"
        return
    for index, (one, two) in enumerate(zip(model.outputs, other.outputs, strict=True)):
        if not _alike(one, two):
            yield f"its output {index} is {_told(two)}, that of the job's model {_told(one)}"


def _alike(one: Tensorlike, other: Tensorlike) -> bool:
    fits = all(a == b or isinstance(a, str) or isinstance(b, str) for a, b in zip(one.shape, other.shape, strict=False))
    return one.dtype == other.dtype and len(one.shape) == len(other.shape) and fits


def _told(spec: Tensorlike) -> str:
    return f"{spec.dtype} {list(spec.shape)}"


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def data_faults(model: ModelFacts, data: DatasetFacts, pointer: str, *, task: str | None = None) -> list[RecipeFault]:
    """What of a tensor dataset does not fit the model: columns, types, shapes, too few samples, classes unknown to it.

    Args:
        task: of the model, as the uploader said.
    """
    columns = {column.name: column for column in data.columns}
    wanted = [spec.name for spec in model.inputs]
    if len(wanted) == 1 and wanted[0] not in columns and ANY_INPUT in columns:
        wanted = [ANY_INPUT]
    further = [further_label(spec.name) for spec in model.outputs[1:]]
    if any(name not in columns for name in wanted) or any(name not in (*wanted, LABEL, *further) for name in columns):
        names = ", ".join(repr(spec.name) for spec in model.inputs)
        has = ", ".join(map(repr, columns))
        labels = _quoted([LABEL, *further])
        detail = f"the dataset has columns {has}; the model needs {names}, and optionally {labels}"
        return [RecipeFault("dataset_columns_mismatch", pointer, detail)]
    faults = []
    sizes: dict[str, int | str] = {}
    for spec, name in zip(model.inputs, wanted, strict=True):
        column = columns[name]
        if column.dtype != spec.dtype:
            detail = f"column {name!r} is {column.dtype}; the model takes {spec.dtype}: convert it"
            faults.append(RecipeFault("dataset_dtype_mismatch", pointer, detail))
        if not _shape_fits(spec, column, sizes):
            detail = (
                f"samples of column {name!r} have shape {list(column.shape)}; the model takes {list(spec.shape[1:])}"
            )
            faults.append(RecipeFault("dataset_shape_mismatch", pointer, detail))
    if data.samples < MIN_SAMPLES:
        detail = f"the dataset has {data.samples} samples; at least {MIN_SAMPLES} are needed"
        faults.append(RecipeFault("dataset_too_few_samples", pointer, detail))
    return [*faults, *_label_faults(model, data, columns, pointer, task)]


def _label_faults(
    model: ModelFacts, data: DatasetFacts, columns: Mapping[str, TensorFacts], pointer: str, task: str | None
) -> Iterator[RecipeFault]:
    """Classes that the model has no score for; only where labels and first output can mean nothing but classes."""
    scores = model.outputs[0].shape if model.outputs else ()
    classes = scores[1] if len(scores) == 2 else None
    label = data.label or {}
    classified = task in (None, "classification") and label.get("kind") == "class" and not columns[LABEL].shape
    if not classified or not isinstance(classes, int) or classes < 2:
        return
    low, high = label["min"], label["max"]
    if low < 0 or high >= classes:
        detail = (
            f"labels in column {LABEL!r} go from {low} to {high}; the output {model.outputs[0].name!r} scores "
            f"{classes} classes: labels must be 0 to {classes - 1}"
        )
        yield RecipeFault("labels_out_of_range", pointer, detail)


def teaches(model: ModelFacts, data: DatasetFacts) -> bool:
    """Whether any output of the model has labels in this dataset."""
    columns = {column.name for column in data.columns}
    return data.label is not None or any(further_label(spec.name) in columns for spec in model.outputs[1:])


def labelled(datasets: Sequence[DatasetFacts | None]) -> bool | None:
    """Whether any of these datasets has labels; None where that is not known yet."""
    if any(facts is not None and facts.label is not None for facts in datasets):
        return True
    return None if None in datasets else False


def _shape_fits(spec: TensorFacts, column: TensorFacts, sizes: dict[str, int | str]) -> bool:
    wanted = spec.shape[1:]
    return len(column.shape) == len(wanted) and all(
        size == (sizes.setdefault(dim, size) if isinstance(dim, str) else dim)
        for size, dim in zip(column.shape, wanted, strict=True)
    )
