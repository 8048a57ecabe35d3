"""PyTorch on CPU, eager: the one runtime whose session loads torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.engine.runtimes.base import Array


class _Torch:
    def __init__(self, path: Path, threads: int) -> None:
        import torch  # noqa: PLC0415 (other runtimes are measured without it)

        torch.set_num_threads(threads)
        self._torch = torch
        # Only ever a file that this service wrote itself.
        self._module = torch.export.load(str(path)).module()

    def run(self, inputs: Mapping[str, Array]) -> list[NDArray[Any]]:
        """Inputs go by position: their names need not be names in Python, as those of an ONNX file are not."""
        torch = self._torch
        with torch.inference_mode():
            outputs = self._module(*(torch.from_numpy(np.ascontiguousarray(array)) for array in inputs.values()))
        if isinstance(outputs, Mapping):
            outputs = tuple(outputs.values())
        return [output.numpy() for output in (outputs if isinstance(outputs, (tuple, list)) else (outputs,))]


def open_session(path: Path, threads: int, exact: bool = False) -> _Torch:
    """Loads a ``.pt2`` file that this service made; arithmetic is float32, so `exact` changes nothing."""
    return _Torch(path, threads)
