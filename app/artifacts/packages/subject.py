"""What every layout is made of."""

from collections.abc import Mapping
from dataclasses import dataclass

from app.artifacts.packages.tensors import Tensors
from app.web.archive import Entry, Piece


@dataclass(frozen=True)
class Subject:
    """An artifact that is to be served.

    Attributes:
        backend: of Triton.
        files: the name that the backend expects -> where the bytes lie in the artifact's file.
        papers: provenance: name -> content.
        name, version: under which clients ask for the model.
    """

    artifact_id: str
    sha256: str
    backend: str
    tensors: Tensors
    files: Mapping[str, Piece]
    papers: Mapping[str, bytes]
    name: str
    version: int

    def provenance(self, folder: str) -> list[Entry]:
        """The papers in that folder."""
        return [Entry(f"{folder}/provenance/{name}", content) for name, content in self.papers.items()]
