"""Whether data and recipe fit a model, told from the facts of their checks; the engine checks the files again."""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from app.recipes.errors import RecipeFault
from app.recipes.facts import DatasetFacts, ModelFacts, TensorFacts
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


def layer_faults(recipe: Recipe, model: ModelFacts, *, pointer: str = "/recipe") -> list[RecipeFault]:
    """Globs in ``layers`` of a step that match no layer of the model."""
    names = [layer.name for layer in model.layers]
    if not names:
        return []
    known = ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
    return [
        RecipeFault(
            "unknown_layer",
            f"{pointer}/steps/{index}/layers/{side}/{position}",
            f"no layer matches {glob[:100]!r}; the model has {known}",
        )
        for index, step in enumerate(recipe.steps)
        for side in ("include", "exclude")
        for position, glob in enumerate(getattr(step.layers, side))
        if not any(fnmatchcase(name, glob) for name in names)
    ]


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
        detail = f"the dataset has columns {has}; the model needs {names}, and optionally {LABEL!r}"
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
            f"labels go from {low} to {high}; the model scores {classes} classes: labels must be 0 to {classes - 1}"
        )
        yield RecipeFault("labels_out_of_range", pointer, detail)


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
