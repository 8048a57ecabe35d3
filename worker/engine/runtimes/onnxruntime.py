"""ONNX Runtime on CPU."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from worker.engine.errors import RuntimeFailure
from worker.engine.runtimes.base import Array


class _OnnxRuntime:
    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime  # noqa: PLC0415 (an optional runtime)

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise RuntimeFailure("runtime_failed", f"ONNX Runtime cannot load the artifact: {error}") from error
        self._names = {value.name for value in self._session.get_inputs()}

    def run(self, inputs: Mapping[str, Array]) -> list[NDArray[Any]]:
        used = {name: value for name, value in inputs.items() if name in self._names}
        outputs: list[NDArray[Any]] = self._session.run(None, used)
        return outputs


def open_session(path: Path, threads: int, exact: bool = False) -> _OnnxRuntime:
    """Loads an ``.onnx`` file; arithmetic is always as the file says, so `exact` changes nothing."""
    return _OnnxRuntime(path, threads)
