"""What labels mean: the task, and whether they fit the model's answer."""

from typing import TYPE_CHECKING

import numpy as np

from app.recipes.fit import LABEL
from worker.engine.data import codes
from worker.engine.data.samples import Array
from worker.engine.errors import InvalidDataset

if TYPE_CHECKING:
    from worker.engine.network import TensorSpec

#: Tasks whose metric is measured here; others are accepted and get no metric.
MEASURED = ("classification", "regression")


def task_of(labels: Array, scores: "TensorSpec", task: str | None, column: str = LABEL) -> str:
    """The task: as the uploader said, else told from the labels and the output that they are of.

    Integer labels, one for each sample, and one score per class: classification. Anything else: regression.

    Args:
        labels: (samples, ...).
        column: where they stand: named in errors.
    Raises:
        InvalidDataset: labels of a dtype or shape that the task cannot have, or classes that have no score.
    """
    if task is None:
        integers = labels.dtype.kind in "iub"
        task = "classification" if integers and labels.ndim == 1 and _classes(scores) is not None else "regression"
    if task == "classification":
        _check_classes(labels, scores, column)
    elif task == "regression":
        _check_values(labels, scores, column)
    return task


def _classes(scores: "TensorSpec") -> int | None:
    """How many classes a (batch, classes) output scores; None where it is something else."""
    count = scores.shape[-1] if len(scores.shape) == 2 else None
    return count if isinstance(count, int) and count >= 2 else None


def _check_classes(labels: Array, scores: "TensorSpec", column: str) -> None:
    classes = _classes(scores)
    if classes is None:
        raise InvalidDataset(
            codes.LABELS_SHAPE,
            f"Classes in column {column!r}: the output {scores.name!r} must be (batch, classes); it is "
            f"{list(scores.shape)}. Say "
            "task: regression with float labels, or export the model so that it returns one score per class.",
        )
    if labels.ndim != 1:
        raise InvalidDataset(
            codes.LABELS_SHAPE,
            f"Class labels are one integer for each sample; column {column!r} has shape {labels.shape}. One-hot rows "
            "become such with labels.argmax(axis=1).",
        )
    if labels.dtype.kind not in "iub":
        raise InvalidDataset(
            codes.LABELS_DTYPE,
            f"Class labels are integers; column {column!r} is {labels.dtype.name}. Store "
            "labels.astype('int64'), or say task: regression.",
        )
    low, high = int(np.min(labels)), int(np.max(labels))
    if low < 0 or high >= classes:
        raise InvalidDataset(
            codes.LABELS_OUT_OF_RANGE,
            f"Labels in column {column!r} go from {low} to {high}, the output {scores.name!r} scores {classes} "
            f"classes: labels must be 0 to {classes - 1}.",
        )


def _check_values(labels: Array, scores: "TensorSpec", column: str) -> None:
    wanted = scores.shape[1:]
    sizes = wanted[:-1] if wanted[-1:] == (1,) and labels.ndim == len(wanted) else wanted
    found = labels.shape[1:]
    if len(found) != len(sizes) or any(
        isinstance(dim, int) and size != dim for size, dim in zip(found, sizes, strict=True)
    ):
        raise InvalidDataset(
            codes.LABELS_SHAPE,
            f"Column {column!r} has shape {labels.shape}; the output {scores.name!r} is {list(scores.shape)}, so "
            f"labels are (samples, {', '.join(map(str, wanted))}), or one integer below the number of classes "
            "for each sample.",
        )
