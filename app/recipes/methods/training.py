"""Parameters of training: what methods that also train have in common, and of the methods that only do so."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from app.recipes.methods.base import Data, Stage, Step
from app.recipes.methods.effects import Effects, Work


class TrainedStep(Step):
    """What methods that can train along the way have in common; where they do not, nothing is said of how.

    Attributes:
        trains_with: what makes it train.
        epochs: passes over the training samples.
        learning_rate: of the weights, at its peak.
        batch_size: samples per step.
        teacher: learn from the float model's outputs, beside the labels where there are any.
    """

    trains_with: ClassVar[str] = "epochs above 0"

    epochs: int = Field(1, ge=0, le=1000)
    learning_rate: float = Field(1e-4, gt=0, le=1)
    batch_size: int = Field(64, ge=1, le=4096)
    teacher: bool = True

    @model_validator(mode="after")
    def _of_a_training(self) -> Self:
        fields = type(self).model_fields
        # A stored recipe spells all defaults out: they are not meant.
        meant = [name for name in TrainedStep.__annotations__ if name in fields]
        meant = [name for name in meant if getattr(self, name) != fields[name].default]
        if meant and "training" not in self.needed:
            raise ValueError(f"nothing trains here: add {self.trains_with}, or leave {', '.join(meant)} out")
        return self

    @property
    def training(self) -> Work:
        """What its training costs, for estimates; nothing where it does not train."""
        if "training" not in self.needed:
            return Work()
        held = 2.0 if self.teacher else 1.0
        return Work(epochs=self.epochs, batch=self.batch_size, taught=self.teacher, held=held)

    @property
    def needs_labels(self) -> bool:
        """Where it trains without a teacher."""
        return "training" in self.needed and not self.teacher


class TrainingStep(Step):
    """What methods that do nothing but train have in common.

    Attributes:
        epochs: passes over the training samples, at most.
        learning_rate: at its peak, after the warm-up; it then falls along a cosine.
        batch_size: samples per step.
        optimizer: AdamW, or stochastic gradient descent with Nesterov momentum 0.9.
        weight_decay: of matrices and kernels, decoupled (AdamW) or as L2 (SGD).
        clip_norm: gradients are shortened to this length.
        patience: epochs without a better loss on held-back training samples before it stops, and goes back to the
            best of them; 0: all epochs, and the last one counts.
    """

    stage: ClassVar[Stage] = "train"
    needs: ClassVar[tuple[Data, ...]] = ("training",)

    epochs: int = Field(3, ge=1, le=1000)
    learning_rate: float = Field(5e-4, gt=0, le=1)
    batch_size: int = Field(64, ge=1, le=4096)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = Field(0.01, ge=0, le=1)
    clip_norm: float = Field(1.0, gt=0)
    patience: int = Field(0, ge=0, le=1000)

    @property
    def effects(self) -> Effects:
        """Weights change, and nothing else."""
        return Effects(work=Work(epochs=self.epochs, batch=self.batch_size, held=1.0))


class Finetune(TrainingStep):
    """Training on the labels alone, of the network as the steps before left it."""

    summary: ClassVar[str] = "trains on the labels, as after pruning or factorizing; needs labelled training data"

    method: Literal["finetune"] = "finetune"

    @property
    def needs_labels(self) -> bool:
        """Always."""
        return True
