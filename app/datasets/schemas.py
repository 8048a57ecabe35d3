"""Datasets as the API takes and shows them."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from app.recipes.facts import TensorFacts
from app.tables import Dataset
from app.uploads.schemas import Upload, UploadFields

Kind = Literal["tensors", "text"]


class DatasetFields(UploadFields):
    """What is sent with a dataset."""

    kind: Kind = Field(description="`tensors`: .npz, .safetensors or .parquet; `text`: .jsonl or .txt.")


class DatasetView(Upload):
    """A dataset."""

    kind: str
    columns: list[TensorFacts] | None = Field(description="With the shape of one sample; known once it is `ready`.")
    samples: int | None = Field(description="Number of rows; known once it is `ready`.")
    created_at: datetime

    @classmethod
    def of(cls, dataset: Dataset) -> "DatasetView":
        """The view of a row."""
        facts = dataset.facts or {}
        return cls(
            id=dataset.id,
            name=dataset.name,
            filename=dataset.filename,
            kind=dataset.kind,
            metadata=dataset.meta,
            size_bytes=dataset.size_bytes,
            sha256=dataset.sha256,
            state=dataset.state,
            columns=facts.get("columns"),
            samples=facts.get("samples"),
            error=dataset.error,
            created_at=dataset.created_at,
        )
