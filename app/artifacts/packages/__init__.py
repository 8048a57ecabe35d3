"""Artifacts as the folders that inference servers read: one line in `LAYOUTS` per server."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from app.artifacts.packages import kserve, triton
from app.artifacts.packages.subject import Subject
from app.web.archive import Entry

Layout = Literal["triton", "kserve"]


@dataclass(frozen=True)
class _Layout:
    """What a layout is for, and the files of a package."""

    summary: str
    entries: Callable[[Subject], list[Entry]]


LAYOUTS: Final[Mapping[Layout, _Layout]] = {
    "triton": _Layout("A model repository of Triton Inference Server.", triton.entries),
    "kserve": _Layout("A model repository, and the InferenceService that has KServe's Triton load it.", kserve.entries),
}

__all__ = ["LAYOUTS", "Layout", "Subject"]
