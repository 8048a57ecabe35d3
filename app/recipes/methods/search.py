"""Parameters of the architecture search."""

from typing import ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from app.recipes.methods.base import Stage
from app.recipes.methods.effects import Effects, Narrowed, Work
from app.recipes.methods.training import TrainingStep

#: Fine enough for a limit to be used up, and nothing so narrow that it teaches the others nothing.
_WIDTHS: Final = tuple(share / 16 for share in range(4, 17))


class SearchArchitecture(TrainingStep):
    """The best network inside the uploaded one that keeps a limit, found with a supernet that shares its weights.

    Attributes:
        strategy: ``evolutionary``: mutation and crossover of the best so far; ``reinforcement``: a policy that decides
            layer after layer; ``differentiable``: gates trained by gradient.
        objective: what the best one is best in: the task's metric on held-back training samples.
        limit: what is limited: multiply-accumulates, parameters, or the time of a sample in the job's first target.
        limit_ratio: the limit, as a share of what the network has when it comes in.
        trials: sub-networks that are evaluated, about.
        widths: shares of its channels that a layer may keep; all of them is always a choice.
        round_to: widths are rounded to a multiple of this many channels.
        depth: whether residual blocks may be left out.
        kernels: whether kernels of 5x5 and larger may shrink to their centre.
        teacher: the supernet learns from the uploaded model's outputs, beside the labels where there are any.
        epochs: of the supernet's training.
        learning_rate: of the supernet's training.
    """

    summary: ClassVar[str] = "the best widths, depth and kernels inside the uploaded network; needs training data"
    stage: ClassVar[Stage] = "search"

    method: Literal["search.architecture"] = "search.architecture"
    strategy: Literal["evolutionary", "reinforcement", "differentiable"] = "evolutionary"
    objective: Literal["metric"] = "metric"
    limit: Literal["macs", "size", "latency"] = "macs"
    limit_ratio: float = Field(0.5, gt=0, lt=1)
    trials: int = Field(64, ge=1, le=10_000)
    widths: tuple[float, ...] = Field(_WIDTHS, min_length=1, max_length=64)
    round_to: int = Field(8, ge=1, le=256)
    depth: bool = True
    kernels: bool = True
    teacher: bool = True
    epochs: int = Field(5, ge=1, le=1000)
    learning_rate: float = Field(1e-3, gt=0, le=1)

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if not all(0 < share <= 1 for share in self.widths):
            raise ValueError("widths are shares of a layer's channels: above 0, and at most 1")
        return self

    @property
    def needs_labels(self) -> bool:
        """Where the uploaded model does not teach."""
        return not self.teacher

    @property
    def effects(self) -> Effects:
        """As narrow as the limit wants, which time keeps as arithmetic does; the supernet trains, then it is tried."""
        shape = Narrowed(None, self.limit_ratio, "parameters" if self.limit == "size" else "macs", competing=True)
        work = Work(epochs=self.epochs, batch=self.batch_size, taught=self.teacher, held=2.0, tries=self.trials)
        return Effects(shape=shape, work=work)
