"""What the check of an upload found out: all that the API knows about a file that it never opens."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorFacts(_Facts):
    """An input, output or column. A string in `shape` names a symbolic dimension; a dataset's shapes are per sample."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class LayerFacts(_Facts):
    """One layer of a model: enough for estimates and for checking the names in a recipe.

    Attributes:
        kind: ``Conv2d``, ``Linear``, ...
        parameters: number of scalars.
        macs: multiply-accumulates per sample; 0 where unknown.
    """

    name: str
    kind: str
    parameters: int
    macs: int = 0


class ModelFacts(_Facts):
    """What a model is."""

    format: str
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    parameters: int
    layers: tuple[LayerFacts, ...] = ()
    operators: dict[str, int] = {}
    notes: tuple[str, ...] = ()


class DatasetFacts(_Facts):
    """What a dataset is.

    Attributes:
        columns: name, dtype, and shape of one sample.
        samples: number of rows.
        label: for a ``label`` column, ``{"kind": "class" | "float", "min", "max"}``.
    """

    columns: tuple[TensorFacts, ...]
    samples: int
    label: dict[str, Any] | None = None
