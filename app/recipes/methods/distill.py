"""Parameters of distillation."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from app.recipes.described import Described
from app.recipes.methods.effects import Effects, Narrowed, Work
from app.recipes.methods.training import TrainingStep


class Student(Described):
    """Who learns: a model of its own, or a thinner or shallower copy of the job's.

    Attributes:
        model_id: an uploaded model with the inputs and outputs of the job's; it is trained from its own weights.
        width: share of the channels that stay, of every layer.
        depth: share of the repeated blocks that stay.
    """

    model_id: str | None = Field(None, min_length=1, max_length=100)
    width: float | None = Field(None, gt=0, le=1)
    depth: float | None = Field(None, gt=0, le=1)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        scaled = self.width is not None or self.depth is not None
        if (self.model_id is not None) == scaled:
            raise ValueError('a student is {"model_id": "mdl_..."}, or {"width": 0.5, "depth": 1}, not both')
        return self


class SoftLabels(Described):
    """``T^2 KL(softmax(teacher / T), softmax(student / T))`` for scores of classes, else the squared error.

    Attributes:
        temperature: T (Hinton et al. 2015, https://arxiv.org/abs/1503.02531).
        weight: in the sum of losses.
    """

    temperature: float = Field(4, gt=0, le=100)
    weight: float = Field(1, gt=0, le=1e6)


class FeatureLoss(Described):
    """Squared error of values inside the networks.

    Attributes:
        layers: ``auto``: the last one of each stage of the teacher; or globs on the names of its layers. The student
            learns each in its layer of the same name, or at a similar depth with as many positions.
        weight: in the sum of losses.
    """

    layers: Literal["auto"] | Annotated[tuple[str, ...], Field(min_length=1, max_length=64)] = "auto"
    weight: float = Field(1, gt=0, le=1e6)


class TaskLoss(Described):
    """Cross entropy or squared error of the labels; nothing where there are none.

    Attributes:
        weight: in the sum of losses.
    """

    weight: float = Field(1, gt=0, le=1e6)


class Losses(Described):
    """What is summed up; null: not this one.

    Attributes:
        soft_labels: what the teacher answers.
        features: what the teacher computes inside.
        task: the labels, where there are any.
    """

    soft_labels: SoftLabels | None = Field(default_factory=SoftLabels)
    features: FeatureLoss | None = None
    task: TaskLoss | None = Field(default_factory=TaskLoss)

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.soft_labels is None and self.features is None and self.task is None:
            raise ValueError("nothing is left to learn from: give soft_labels, features or task")
        return self


class Distill(TrainingStep):
    """A network learns the answers of the model as it was uploaded.

    Attributes:
        student: who learns; null: the network as the steps before left it.
        losses: what it learns.
    """

    summary: ClassVar[str] = "trains a smaller network on the answers of the uploaded one; needs training data"

    method: Literal["distill"] = "distill"
    student: Student | None = None
    losses: Losses = Field(default_factory=Losses)

    @property
    def needs_labels(self) -> bool:
        """Where the teacher is asked for nothing."""
        return self.losses.soft_labels is None and self.losses.features is None

    @property
    def starts_anew(self) -> bool:
        """A student of its own is the uploaded model, or another one."""
        return self.student is not None

    @property
    def effects(self) -> Effects:
        """The student takes the model's place; the teacher answers beside it."""
        student = self.student or Student(width=1.0)
        return Effects(
            shape=None if student.width in (None, 1.0) else Narrowed(student.width),
            depth=student.depth or 1.0,
            model=student.model_id,
            work=Work(epochs=self.epochs, batch=self.batch_size, taught=not self.needs_labels, held=2.0),
        )

    @property
    def models_at(self) -> Mapping[str, str]:
        """The student, where it is a model of its own."""
        if self.student is None or self.student.model_id is None:
            return {}
        return {"student/model_id": self.student.model_id}
