"""Blobs, the resumable uploads that bring them, and the models and datasets made of them."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.tables.base import Base, Bytes, CreatedAt, Json, Sha256, new_id


class Blob(Base):
    """Bytes in the store, known by their digest; kept apart per workspace so that no digest leaks across."""

    __tablename__ = "blobs"

    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"), primary_key=True)
    sha256: Mapped[Sha256] = mapped_column(primary_key=True)
    size_bytes: Mapped[Bytes]
    #: Renewed whenever something new refers to it, so that the collector leaves fresh ones alone.
    touched_at: Mapped[CreatedAt]


class ResumableUpload(Base):
    """A file that arrives in pieces (tus).

    Its bytes are the `UploadPart`s up to `received_bytes`; a part counts once this row says so, so that of several
    requests that send the same bytes at once one wins and nothing is torn.
    """

    __tablename__ = "uploads"
    __table_args__ = (
        ForeignKeyConstraint(["workspace_id", "sha256"], ["blobs.workspace_id", "blobs.sha256"]),
        CheckConstraint("received_bytes <= size_bytes", name="received"),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("upl"))
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"), index=True)
    #: The file's name, where the client told it.
    filename: Mapped[str]
    #: `Upload-Metadata` as it was sent.
    meta: Mapped[str] = mapped_column("metadata")
    size_bytes: Mapped[Bytes]
    received_bytes: Mapped[Bytes] = mapped_column(server_default="0")
    #: The whole file, once its parts were put together.
    sha256: Mapped[Sha256 | None]
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class UploadPart(Base):
    """Some bytes of a resumable upload, in the store like any others."""

    __tablename__ = "upload_parts"
    __table_args__ = (
        ForeignKeyConstraint(["workspace_id", "sha256"], ["blobs.workspace_id", "blobs.sha256"]),
        Index("ix_upload_parts_blob", "workspace_id", "sha256"),
    )

    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True)
    #: Where in the file they begin.
    start: Mapped[Bytes] = mapped_column(primary_key=True)
    workspace_id: Mapped[str]
    size_bytes: Mapped[Bytes]
    sha256: Mapped[Sha256]


class Model(Base):
    """An uploaded machine-learning model."""

    __tablename__ = "models"
    __table_args__ = (
        ForeignKeyConstraint(["workspace_id", "sha256"], ["blobs.workspace_id", "blobs.sha256"]),
        CheckConstraint("state IN ('checking','ready','rejected')", name="state"),
        Index("ix_models_listing", "workspace_id", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("mdl"))
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    name: Mapped[str]
    filename: Mapped[str]
    #: What the uploader said, until the check has told.
    format: Mapped[str | None]
    task: Mapped[str | None]
    meta: Mapped[Json] = mapped_column("metadata", server_default="{}")
    size_bytes: Mapped[Bytes]
    sha256: Mapped[Sha256]
    state: Mapped[str] = mapped_column(server_default="checking")
    #: What the check found: inputs, outputs, parameters, layers, ... (see app.recipes.facts.ModelFacts).
    facts: Mapped[Json | None]
    error: Mapped[Json | None]
    created_at: Mapped[CreatedAt]


class Dataset(Base):
    """An uploaded dataset."""

    __tablename__ = "datasets"
    __table_args__ = (
        ForeignKeyConstraint(["workspace_id", "sha256"], ["blobs.workspace_id", "blobs.sha256"]),
        CheckConstraint("state IN ('checking','ready','rejected')", name="state"),
        CheckConstraint("kind IN ('tensors','text')", name="kind"),
        Index("ix_datasets_listing", "workspace_id", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("dst"))
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    name: Mapped[str]
    filename: Mapped[str]
    kind: Mapped[str]
    meta: Mapped[Json] = mapped_column("metadata", server_default="{}")
    size_bytes: Mapped[Bytes]
    sha256: Mapped[Sha256]
    state: Mapped[str] = mapped_column(server_default="checking")
    #: What the check found: columns, samples, label range, ... (see app.recipes.facts.DatasetFacts).
    facts: Mapped[Json | None]
    error: Mapped[Json | None]
    created_at: Mapped[CreatedAt]
