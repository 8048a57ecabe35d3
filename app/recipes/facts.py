"""What the check of an upload found out: all that the API knows about a file that it never opens."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorFacts(_Facts):
    """An input, output or column. A string in `shape` names a symbolic dimension; a dataset's shapes are per sample."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


#: A number of things or bytes; what a check reports is not trusted to be one.
Count = Annotated[int, Field(ge=0, le=2**53)]


class LayerFacts(_Facts):
    """One layer of a model: enough for estimates and for checking the names in a recipe.

    Attributes:
        kind: ``Conv2d``, ``Linear``, ...
        parameters: number of scalars.
        macs: multiply-accumulates per sample; 0 where unknown.
        shapes: of its parameters, by name; empty where a check has not told them yet.
        groups: of a convolution; 1 elsewhere.
    """

    name: str
    kind: str
    parameters: Count
    macs: Count = 0
    shapes: dict[str, tuple[Count, ...]] = {}
    groups: Count = 1


class ModelFacts(_Facts):
    """What a model is.

    Attributes:
        operators: layers and operators -> how often they are called.
        value_bytes: all that one sample leads to within the model; 0 where a check has not told it yet.
        live_bytes: the most of these that are there at once where nothing is trained.
    """

    format: str
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    parameters: Count
    layers: tuple[LayerFacts, ...] = ()
    operators: dict[str, int] = {}
    value_bytes: Count = 0
    live_bytes: Count = 0
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
