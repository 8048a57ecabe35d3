"""Fits the columns of a dataset to the inputs of a model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from app.recipes.fit import ANY_INPUT, LABEL, MIN_SAMPLES, further_label
from worker.engine.data import codes
from worker.engine.data.samples import Samples
from worker.engine.data.table import Table
from worker.engine.errors import InvalidDataset, InvalidModel

if TYPE_CHECKING:
    from worker.engine.network import TensorSpec


def match(table: Table, inputs: Sequence["TensorSpec"], role: str, outputs: Sequence["TensorSpec"] = ()) -> Samples:
    """The samples of `table` under the names of the model's inputs.

    Args:
        table: columns, each (samples, ...).
        inputs: what the model takes; the first dimension of each is the batch, symbolic or 1.
        outputs: what it returns; all but the first may have labels in a column of their own.
        role: calibration, training or evaluation: named in errors.

    Raises:
        InvalidDataset: a column missing or unknown, a wrong dtype or shape, fewer than `MIN_SAMPLES` samples.
    """
    further = {spec.name: further_label(spec.name) for spec in outputs[1:] if further_label(spec.name) in table}
    columns = _columns(table, inputs, role, [further_label(spec.name) for spec in outputs[1:]])
    sizes: dict[str, int] = {}
    for spec, column in zip(inputs, columns, strict=True):
        _check_dtype(table, spec, column, role)
        _check_shape(table, spec, column, role, sizes)
    samples = Samples(
        {spec.name: table[column] for spec, column in zip(inputs, columns, strict=True)},
        table.get(LABEL) if LABEL not in columns else None,
        {name: table[column] for name, column in further.items() if column not in columns},
    )
    if len(samples) < MIN_SAMPLES:
        raise InvalidDataset(
            codes.TOO_FEW_SAMPLES,
            f"The {role} dataset has {len(samples)} samples; at least {MIN_SAMPLES} are needed, and a few hundred "
            "give better ranges and narrower intervals.",
        )
    return samples


def require_batch(inputs: Sequence["TensorSpec"]) -> None:
    """Refuse a model that cannot be run sample by sample.

    Raises:
        InvalidModel: an input whose first dimension is neither symbolic nor 1.
    """
    for spec in inputs:
        if not spec.shape or not (spec.batched or spec.shape[0] == 1):
            raise InvalidModel(
                codes.FIXED_BATCH,
                f"Input {spec.name!r} has shape {list(spec.shape)}: its first dimension must be a batch that is "
                "dynamic or 1. Export the model with a dynamic first dimension.",
            )


def _columns(table: Table, inputs: Sequence["TensorSpec"], role: str, further: Sequence[str]) -> list[str]:
    """For each input the name of its column; `further`: those of the labels of further outputs."""
    wanted = [spec.name for spec in inputs]
    if len(wanted) == 1 and wanted[0] not in table and ANY_INPUT in table:
        wanted = [ANY_INPUT]
    missing = [name for name in wanted if name not in table]
    unknown = [name for name in table if name not in (*wanted, LABEL, *further)]
    if missing or unknown:
        either = f" (or {ANY_INPUT!r})" if len(inputs) == 1 and inputs[0].name != ANY_INPUT else ""
        raise InvalidDataset(
            codes.COLUMNS_MISMATCH,
            f"The {role} dataset has columns {', '.join(map(repr, table))}; the model needs "
            f"{', '.join(repr(spec.name) for spec in inputs)}{either}, and optionally "
            f"{', '.join(map(repr, (LABEL, *further)))}. "
            + (f"Missing: {', '.join(map(repr, missing))}. " if missing else "")
            + (f"Unknown: {', '.join(map(repr, unknown))}." if unknown else ""),
        )
    return wanted


def _check_dtype(table: Table, spec: "TensorSpec", column: str, role: str) -> None:
    found = table[column].dtype.name
    if found != spec.dtype:
        raise InvalidDataset(
            codes.DTYPE_MISMATCH,
            f"Column {column!r} of the {role} dataset is {found}; the model takes {spec.dtype}. Convert it as you do "
            f"before you call the model, scaling included, ending in array.astype({spec.dtype!r}).",
        )


def _check_shape(table: Table, spec: "TensorSpec", column: str, role: str, sizes: dict[str, int]) -> None:
    found, wanted = table[column].shape[1:], spec.shape[1:]
    fits = len(found) == len(wanted) and all(
        size == (sizes.setdefault(dim, size) if isinstance(dim, str) else dim)
        for size, dim in zip(found, wanted, strict=True)
    )
    if not fits:
        spelled = ", ".join(map(str, ("samples", *wanted)))
        raise InvalidDataset(
            codes.SHAPE_MISMATCH,
            f"Column {column!r} of the {role} dataset has shape {tuple(table[column].shape)}; the model takes "
            f"({spelled}).",
        )
