"""What all steps share."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import ClassVar, Literal

from pydantic import Field

from app.recipes.described import Described
from app.recipes.methods.effects import Effects

Stage = Literal["search", "factorize", "prune", "train", "quantize"]
Data = Literal["calibration", "training"]


class LayerFilter(Described):
    """Narrows a step to some layers, by shell-style globs on their names.

    Attributes:
        include: globs on the names of layers that the step may change.
        exclude: globs on the names of layers that it leaves alone, whatever `include` says.
    """

    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()

    @property
    def globs(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.include, *self.exclude)

    def matches(self, layer: str) -> bool:
        """Whether the step applies to this layer."""
        return any(fnmatchcase(layer, glob) for glob in self.include) and not any(
            fnmatchcase(layer, glob) for glob in self.exclude
        )


class Step(Described):
    """Parameters of one method; the class is the lookup key, the ClassVars are what the API must know about it.

    Attributes:
        summary: one line for ``GET /v1/methods``.
        stage: decides the ordering (search, factorize, prune, train in any order, then quantize).
        needs: data without which it cannot run, whatever its parameters.
        asks: parameter -> attribute of a target's `Grid` that lists the values which the target can hold.
        layers: only these, by globs on their names.
    """

    summary: ClassVar[str]
    stage: ClassVar[Stage]
    needs: ClassVar[tuple[Data, ...]] = ()
    asks: ClassVar[Mapping[str, str]] = {}

    method: str
    layers: LayerFilter = Field(default_factory=LayerFilter)

    @property
    def needed(self) -> tuple[Data, ...]:
        """Data without which it cannot run with these parameters."""
        return self.needs

    @property
    def needs_labels(self) -> bool:
        """Whether its training data must have labels: nothing else teaches."""
        return False

    @property
    def starts_anew(self) -> bool:
        """Whether it goes on from another network than the steps before have made, so that it must come first."""
        return False

    @property
    def changes_weights(self) -> bool:
        """Whether the step changes float weights, so that no quantization may stand in front of it."""
        return self.stage != "quantize"

    @property
    def renames_layers(self) -> bool:
        """Whether layers behind the step may have other names than those of the uploaded model."""
        return self.stage in ("factorize", "search") or bool(self.models_at)

    @property
    def models_at(self) -> Mapping[str, str]:
        """Models that it reads beside the job's own: JSON pointer within the step -> id."""
        return {}

    @property
    def models(self) -> tuple[str, ...]:
        """Ids of these models, each once."""
        return tuple(dict.fromkeys(self.models_at.values()))

    @property
    def effects(self) -> Effects:
        """What it does to the model and what it costs, as far as the parameters tell; for estimates."""
        return Effects()

    @classmethod
    def name(cls) -> str:
        """The method's name in recipes, taken from the Literal type of `method`."""
        return str(cls.model_fields["method"].default)
