"""Artifacts as the API shows them."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field

from app.artifacts.packages import LAYOUTS, Layout
from app.errors import Invalid
from app.tables import Artifact

#: Id of an artifact -> where it is downloaded, as the client sees this service.
Address = Callable[[str], str]
_ANY = "<artifact>"


def addresses(request: Request) -> Address:
    """Addresses for whoever sent `request`. The router is asked once: it is slow, and a list has fifty artifacts."""
    before, _, after = str(request.url_for("artifact_content", artifact_id=_ANY)).rpartition(_ANY)
    return lambda artifact_id: f"{before}{artifact_id}{after}"


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
    def of(cls, row: Artifact, address: Address) -> "JobArtifactView":
        """The view of a row, to be downloaded at that address."""
        return cls(
            id=row.id,
            job_id=row.job_id,
            target=row.target,
            format=row.format,
            filename=row.filename,
            size_bytes=row.size_bytes,
            sha256=row.sha256,
            download_url=address(row.id),
        )


class ArtifactView(JobArtifactView):
    """A compressed model, ready to download."""

    manifest: dict[str, Any] = Field(description="Where it comes from: recipe, digests, versions, hardware.")

    @classmethod
    def of(cls, row: Artifact, address: Address) -> "ArtifactView":
        """The view of a row, to be downloaded at that address."""
        return cls(**dict(JobArtifactView.of(row, address)), manifest=row.manifest)


class Named(BaseModel):
    """How clients of the server are to ask for the model."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")] | None = Field(
        None, description="The model's name; where absent, what the artifact's file name begins with."
    )
    version: int = Field(1, ge=1, le=2**31 - 1, description="The model's version.")


class PackageView(BaseModel):
    """A layout that inference servers read, and whether this artifact fits it."""

    layout: Layout
    summary: str
    available: bool
    code: str | None = Field(description="Of the refusal, where it is not available.")
    detail: str | None = Field(description="Why it is not available, and what would be.")
    download_url: str | None

    @classmethod
    def of(cls, layout: Layout, fault: Invalid | None, artifact_id: str, request: Request) -> "PackageView":
        """The view of a layout for that artifact."""
        url = request.url_for("artifact_package", artifact_id=artifact_id, layout=layout)
        return cls(
            layout=layout,
            summary=LAYOUTS[layout].summary,
            available=fault is None,
            code=fault.code if fault else None,
            detail=fault.detail if fault else None,
            download_url=None if fault else str(url),
        )


class Packages(BaseModel):
    """Every layout."""

    items: list[PackageView]
