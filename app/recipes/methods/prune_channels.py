"""Parameters of the pruning methods."""

from dataclasses import replace
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from app.recipes.methods.base import Data, Stage
from app.recipes.methods.effects import Effects, Narrowed
from app.recipes.methods.training import TrainedStep

#: Share of the channels that goes where neither `ratio` nor `max_macs_ratio` is given.
_RATIO = 0.5


class PruneChannels(TrainedStep):
    """Whole channels, neurons and heads are removed for good.

    Attributes:
        ratio: share of the removable channels that goes; null beside `max_macs_ratio`, else a half.
        max_macs_ratio: multiply-accumulates that are left, over those there were, at most.
        criterion: what decides: the size of a channel's weights, what the loss says of them, or how large it is.
        scope: ``global``: channels of all layers compete; ``layer``: the same share of each.
        iterations: removal goes in so many parts, each seeing the network that the one before left.
        round_to: channels left in a layer are a multiple of this, where it has more than that.
        samples: how many samples taylor and activation look at, at most.
        epochs: of training after each iteration; 0: none.
    """

    summary: ClassVar[str] = "removes whole channels, neurons and heads; epochs > 0 trains in between"
    stage: ClassVar[Stage] = "prune"

    method: Literal["prune.channels"] = "prune.channels"
    ratio: float | None = Field(None, gt=0, lt=1)
    max_macs_ratio: float | None = Field(None, gt=0, lt=1)
    criterion: Literal["magnitude", "taylor", "activation"] = "magnitude"
    scope: Literal["global", "layer"] = "global"
    iterations: int = Field(1, ge=1, le=100)
    round_to: int = Field(8, ge=1, le=256)
    samples: int = Field(256, ge=1, le=100_000)
    epochs: int = Field(0, ge=0, le=1000)

    @model_validator(mode="after")
    def _one_goal(self) -> Self:
        if self.ratio is not None and self.max_macs_ratio is not None:
            raise ValueError("give ratio or max_macs_ratio, not both")
        return self

    @property
    def share(self) -> float:
        """Share of the channels that goes, where that is the goal."""
        return _RATIO if self.ratio is None else self.ratio

    @property
    def needed(self) -> tuple[Data, ...]:
        """taylor and activation look at samples; training needs its own."""
        seen: tuple[Data, ...] = () if self.criterion == "magnitude" else ("calibration",)
        trained: tuple[Data, ...] = ("training",) if self.epochs else ()
        return (*seen, *trained)

    @property
    def effects(self) -> Effects:
        """Fewer channels; each iteration sees the samples and trains."""
        seen = self.samples if "calibration" in self.needed else 0
        work = replace(
            self.training, samples=seen, passes=3.0 * self.iterations, epochs=self.training.epochs * self.iterations
        )
        goal = self.max_macs_ratio
        shape = Narrowed(
            1 - self.share if goal is None else None,
            budget=goal or 1.0,
            round_to=self.round_to,
            competing=self.scope == "global",
        )
        return Effects(shape=shape, work=replace(work, held=max(work.held, 1.0)))
