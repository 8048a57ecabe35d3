"""Parameters of pruning single weights."""

from dataclasses import replace
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from app.recipes.methods.base import Data, Stage
from app.recipes.methods.effects import Effects
from app.recipes.methods.training import TrainedStep

#: Criteria that weigh a layer's weights against each other and not against those of other layers.
_LAYERWISE = ("wanda", "sparsegpt")


class PruneWeights(TrainedStep):
    """Single weights become zero; layers keep their shapes.

    Attributes:
        sparsity: share of the weights that are zero afterwards.
        criterion: which go first: ``magnitude``: the smallest; ``sensitivity``: those of least effect on the loss;
            ``wanda``: the smallest products with what they read; ``sparsegpt``: those whose loss the others can make
            good, which they then do.
        pattern: anywhere, or two of every four neighbouring inputs.
        scope: weights compete across layers, or each layer gives its share; wanda, sparsegpt and 2:4 compare within a
            layer whatever it says.
        schedule: all at once, or along a cubic while the network trains.
        l1: strength of a pull to zero while the network trains and weights still go: in each step a weight comes
            nearer by its product with `learning_rate`; 0: none.
        samples: how many calibration samples are used, at most.
    """

    summary: ClassVar[str] = (
        "sets single weights to zero, anywhere or two of every four; criteria that look at data need calibration data, "
        "gradual and l1 training data"
    )
    stage: ClassVar[Stage] = "prune"

    trains_with: ClassVar[str] = "schedule gradual or l1 above 0"

    method: Literal["prune.weights"] = "prune.weights"
    sparsity: float = Field(0.5, gt=0, lt=1)
    criterion: Literal["magnitude", "sensitivity", "wanda", "sparsegpt"] = "magnitude"
    pattern: Literal["unstructured", "2:4"] = "unstructured"
    scope: Literal["global", "layer"] = "global"
    schedule: Literal["one_shot", "gradual"] = "one_shot"
    l1: float = Field(0, ge=0, le=1000)
    samples: int = Field(256, ge=1, le=100_000)
    epochs: int = Field(3, ge=1, le=1000)
    learning_rate: float = Field(1e-3, gt=0, le=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.pattern == "2:4" and self.sparsity != 0.5:
            raise ValueError("pattern 2:4 keeps two of every four weights: leave sparsity at 0.5, or take unstructured")
        if self.criterion == "sparsegpt" and self.trains:
            raise ValueError(
                "sparsegpt changes the weights that stay, once: leave schedule and l1 out and let finetune follow, or "
                "take another criterion"
            )
        return self

    @property
    def across_layers(self) -> bool:
        """Whether weights compete across layers."""
        return self.scope == "global" and self.within_layers is None

    @property
    def within_layers(self) -> str | None:
        """What compares within a layer whatever `scope` says; None where that decides."""
        if self.criterion in _LAYERWISE:
            return self.criterion
        return self.pattern if self.pattern == "2:4" else None

    @property
    def trains(self) -> bool:
        """Whether the network trains along the way."""
        return self.schedule == "gradual" or self.l1 > 0

    @property
    def needed(self) -> tuple[Data, ...]:
        """Everything but magnitudes is seen on calibration samples."""
        calibration: tuple[Data, ...] = () if self.criterion == "magnitude" else ("calibration",)
        return (*calibration, "training") if self.trains else calibration

    @property
    def effects(self) -> Effects:
        """Zeros are stored like other numbers."""
        seen = self.samples if "calibration" in self.needed else 0
        work = replace(self.training, samples=seen, passes=3.0, rows=self.criterion == "sparsegpt")
        return Effects(work=replace(work, held=max(work.held, 1.0)))
