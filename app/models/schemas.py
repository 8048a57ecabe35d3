"""Models as the API takes and shows them."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from app.recipes.facts import TensorFacts
from app.tables import Model
from app.uploads.schemas import Upload, UploadFields

Format = Literal["pt2", "onnx", "transformers"]
Task = Literal["classification", "regression", "segmentation", "language_model", "embedding", "other"]


class ModelFields(UploadFields):
    """What is sent with a model."""

    format: Format | None = Field(None, description="Told from the file when absent.")
    task: Task | None = Field(None, description="Told from the labels when absent.")


class ModelView(Upload):
    """A model."""

    format: str | None
    task: str | None
    inputs: list[TensorFacts] | None = Field(description="Known once the model is `ready`.")
    outputs: list[TensorFacts] | None = Field(description="Known once the model is `ready`.")
    parameters: int | None = Field(description="Number of scalars; known once the model is `ready`.")
    created_at: datetime

    @classmethod
    def of(cls, model: Model) -> "ModelView":
        """The view of a row."""
        facts = model.facts or {}
        return cls(
            id=model.id,
            name=model.name,
            filename=model.filename,
            format=model.format,
            task=model.task,
            metadata=model.meta,
            size_bytes=model.size_bytes,
            sha256=model.sha256,
            state=model.state,
            inputs=facts.get("inputs"),
            outputs=facts.get("outputs"),
            parameters=facts.get("parameters"),
            error=model.error,
            created_at=model.created_at,
        )
