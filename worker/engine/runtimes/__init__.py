"""Runtimes that artifacts are measured in; nothing here imports torch, except the sessions of torch,
ExecuTorch and TensorRT."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from worker.engine.runtimes import executorch, litert, onnxruntime, openvino, tensorrt, torch
from worker.engine.runtimes.base import Session

#: Target -> (path, threads, exact) -> session.
SESSIONS: Final[Mapping[str, Callable[[Path, int, bool], Session]]] = {
    "executorch": executorch.open_session,
    "litert": litert.open_session,
    "onnxruntime": onnxruntime.open_session,
    "openvino": openvino.open_session,
    "tensorrt": tensorrt.open_session,
    "torch": torch.open_session,
}

__all__ = ["SESSIONS", "Session"]
