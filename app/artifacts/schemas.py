"""Artifacts as the API shows them."""

from typing import Any

from fastapi import Request
from pydantic import BaseModel, Field

from app.tables import Artifact


class JobArtifactView(BaseModel):
    """One artifact of a job; its manifest is at GET /v1/artifacts/{id}."""

    id: str
    job_id: str
    target: str
    format: str
    filename: str
    size_bytes: int
    sha256: str = Field(description="Of the file, in hexadecimal.")
    download_url: str

    @classmethod
    def of(cls, row: Artifact, request: Request) -> "JobArtifactView":
        """The view of a row, with an address that is right as the client sees this service."""
        return cls(
            id=row.id,
            job_id=row.job_id,
            target=row.target,
            format=row.format,
            filename=row.filename,
            size_bytes=row.size_bytes,
            sha256=row.sha256,
            download_url=str(request.url_for("artifact_content", artifact_id=row.id)),
        )


class ArtifactView(JobArtifactView):
    """A compressed model, ready to download."""

    manifest: dict[str, Any] = Field(description="Where it comes from: recipe, digests, versions, hardware.")

    @classmethod
    def of(cls, row: Artifact, request: Request) -> "ArtifactView":
        """The view of a row, with an address that is right as the client sees this service."""
        return cls(**dict(JobArtifactView.of(row, request)), manifest=row.manifest)
