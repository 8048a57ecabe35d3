"""Provenance of an artifact: what it was made of, how, with what and where."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.engine.measure.machine import hardware, versions
from worker.engine.targets import TARGETS

_CHUNK = 1024**2
_MAX_STEM = 100


@dataclass(frozen=True)
class Made:
    """An artifact as it lies in the output folder.

    Attributes:
        format: ``onnx``, ``openvino``, ``pt2``, ...
        filename: under which the user gets it.
        manifest: provenance.
    """

    target: str
    format: str
    path: Path
    filename: str
    manifest: dict[str, Any]


def file_name(model: str, target: str, *, quantized: bool) -> str:
    """``resnet18.pt2`` -> ``resnet18.int8.onnx``: the model's name, what was done to it, the target's suffix."""
    stem = re.sub(r"[^\w.-]+", "_", Path(model).name.split(".")[0]).strip("._-")[:_MAX_STEM] or "model"
    return f"{stem}.{'int8' if quantized else 'compressed'}.{_suffix(target)}"


def describe(target: str, artifact: Path, request: Mapping[str, Any], more: Mapping[str, Any]) -> Made:
    """The artifact with its manifest.

    Args:
        request: recipe, limits, seed, ...: all that decides what comes out.
        more: ``inputs`` (see `identity`), timings, and whatever else the caller knows.
    """
    manifest = {
        "schema": 1,
        "target": target,
        "artifact": identity(artifact),
        **request,
        "versions": versions(),
        "hardware": hardware(),
        **more,
    }
    return Made(target, _suffix(target).removesuffix(".zip"), artifact, artifact.name, manifest)


def identity(path: Path) -> dict[str, Any]:
    """``{"sha256", "size_bytes"}`` of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return {"sha256": digest.hexdigest(), "size_bytes": path.stat().st_size}


def _suffix(target: str) -> str:
    """``onnx``, ``pt2``, ``openvino.zip``: a zip alone would not say what is in it."""
    suffix = TARGETS[target].suffix.lstrip(".")
    return f"{target}.zip" if suffix == "zip" else suffix
