"""Artifacts as the API shows them."""

from typing import Any

from fastapi import Request
from pydantic import BaseModel, Field

from app.tables import Artifact


class ArtifactView(BaseModel):
    """A compressed model, ready to download."""

    id: str
    job_id: str
    target: str
    format: str
    filename: str
    size_bytes: int
    sha256: str = Field(description="Of the file, in hexadecimal.")
    download_url: str
    manifest: dict[str, Any] = Field(description="Where it comes from: recipe, digests, versions, hardware.")

    @classmethod
    def of(cls, artifact: Artifact, request: Request) -> "ArtifactView":
        """The view of a row, with an address that is right as the client sees this service."""
        return cls(
            id=artifact.id,
            job_id=artifact.job_id,
            target=artifact.target,
            format=artifact.format,
            filename=artifact.filename,
            size_bytes=artifact.size_bytes,
            sha256=artifact.sha256,
            download_url=str(request.url_for("artifact_content", artifact_id=artifact.id)),
            manifest=artifact.manifest,
        )
