"""Runtimes an artifact can be for."""

from collections.abc import Mapping
from typing import Final

from worker.engine.targets.base import FloatExport, Target
from worker.engine.targets.onnxruntime import ONNXRUNTIME

#: Name in `app.recipes.TARGETS` -> target.
TARGETS: Final[Mapping[str, Target]] = {target.name: target for target in (ONNXRUNTIME,)}

__all__ = ["TARGETS", "FloatExport", "Target"]
