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
        program = torch.export.load(str(path))
        signature = program.module_call_graph[0].signature
        names = signature.forward_arg_names if signature else None
        self._names = list(names or program.graph_signature.user_inputs)
        self._module = program.module()

    def run(self, inputs: Mapping[str, Array]) -> list[NDArray[Any]]:
        torch = self._torch
        with torch.inference_mode():
            given = [torch.from_numpy(np.ascontiguousarray(inputs[name])) for name in self._names]
            outputs = self._module(*given)
        return [output.numpy() for output in (outputs if isinstance(outputs, (tuple, list)) else (outputs,))]


def open_session(path: Path, threads: int, exact: bool = False) -> _Torch:
    """Loads a ``.pt2`` file that this service made; arithmetic is float32, so `exact` changes nothing."""
    return _Torch(path, threads)
