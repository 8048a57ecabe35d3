"""Runtimes that artifacts are measured in; nothing here imports torch, except the session of torch itself."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from worker.engine.runtimes import onnxruntime, openvino, torch
from worker.engine.runtimes.base import Session

#: Target -> (path, threads, exact) -> session.
SESSIONS: Final[Mapping[str, Callable[[Path, int, bool], Session]]] = {
    "onnxruntime": onnxruntime.open_session,
    "openvino": openvino.open_session,
    "torch": torch.open_session,
}

__all__ = ["SESSIONS", "Session"]
