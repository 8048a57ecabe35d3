"""Runtimes an artifact can be for."""

from collections.abc import Mapping
from typing import Final

from worker.engine.targets.base import Target
from worker.engine.targets.executorch import EXECUTORCH
from worker.engine.targets.float_export import FloatExport
from worker.engine.targets.litert import LITERT
from worker.engine.targets.onnxruntime import ONNXRUNTIME
from worker.engine.targets.openvino import OPENVINO
from worker.engine.targets.tensorrt import TENSORRT
from worker.engine.targets.torch import TORCH

#: Name in `app.recipes.TARGETS` -> target.
TARGETS: Final[Mapping[str, Target]] = {
    target.name: target for target in (ONNXRUNTIME, OPENVINO, TORCH, EXECUTORCH, LITERT, TENSORRT)
}

__all__ = ["TARGETS", "FloatExport", "Target"]
