"""What the service can do: methods, targets, presets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelpress.decode import View


@dataclass(frozen=True, kw_only=True)
class Named(View):
    """A method, target or preset."""

    name: str


@dataclass(frozen=True, kw_only=True)
class Method(Named):
    """What a step of a recipe can do.

    Attributes:
        stage: recipes run search, factorize, prune and train in any order, then quantize.
        needs: data without which it cannot run.
        possible: for each target, the values of the parameters that depend on it.
        parameters: JSON Schema of a step.
    """

    summary: str | None = None
    stage: str | None = None
    needs: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    possible: Mapping[str, Any] | None = None
    parameters: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Target(Named):
    """A runtime that an artifact can be for, and its numeric grid.

    Attributes:
        offered: whether a live worker has it, and on which `compute`.
        artifact: what kind of file it reads.
    """

    artifact: str | None = None
    runs_on: tuple[str, ...] = ()
    offered: bool | None = None
    compute: tuple[str, ...] = ()
    activation_dtype: str | None = None
    symmetric_activations: bool | None = None
    asymmetric_activations: bool | None = None
    activation_bits: tuple[int, ...] = ()
    weight_bits: tuple[int, ...] = ()
    weight_granularity: tuple[str, ...] = ()
    dynamic_weight_bits: tuple[int, ...] = ()
    group_bits: tuple[int, ...] = ()
    codebook_bits: tuple[int, ...] = ()
    dynamic_activations: bool | None = None
    float_formats: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()
    stored: tuple[str, ...] = ()
    stored_beside_integers: tuple[str, ...] = ()
    integer_results: bool | None = None
    saturates: bool | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Preset(Named):
    """A ready recipe."""

    summary: str | None = None
    recipe: Mapping[str, Any] | None = None
