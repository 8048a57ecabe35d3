"""ExecuTorch on CPU: its Python bindings take and return tensors of torch, so this session loads torch too."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.engine.errors import RuntimeFailure
from worker.engine.runtimes.base import Array


class _ExecuTorch:
    def __init__(self, path: Path, threads: int) -> None:
        import torch  # noqa: PLC0415 (other runtimes are measured without it)
        from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool  # noqa: PLC0415 (optional)
        from executorch.runtime import Runtime  # noqa: PLC0415 (an optional runtime)

        self._torch = torch
        try:
            _unsafe_reset_threadpool(threads)  # before a method is loaded: none runs in this pool yet
            self._program = Runtime.get().load_program(path)
            self._method = self._program.load_method("forward")
            meta = self._method.metadata
            # The most samples that the file reserves memory for; whole batches of that many run together.
            self._most = min(meta.input_tensor_meta(i).sizes()[0] for i in range(meta.num_inputs()))
        except (RuntimeError, IndexError) as error:
            raise RuntimeFailure("runtime_failed", f"ExecuTorch cannot load the artifact: {error}") from error

    def run(self, inputs: Mapping[str, Array]) -> list[NDArray[Any]]:
        """Inputs go by position, as many samples at a time as the file can take."""
        count = len(next(iter(inputs.values())))
        parts = [
            self._run([array[start : start + self._most] for array in inputs.values()])
            for start in range(0, count, self._most)
        ]
        return parts[0] if len(parts) == 1 else [np.concatenate(values) for values in zip(*parts, strict=True)]

    def _run(self, arrays: list[Array]) -> list[NDArray[Any]]:
        outputs = self._method.execute([self._torch.from_numpy(np.array(array, order="C")) for array in arrays])
        return [output.numpy().copy() for output in outputs]  # the next run writes to the same memory


def open_session(path: Path, threads: int, exact: bool = False) -> _ExecuTorch:
    """Loads a ``.pte`` file; arithmetic is always as the file says, so `exact` changes nothing."""
    return _ExecuTorch(path, threads)
