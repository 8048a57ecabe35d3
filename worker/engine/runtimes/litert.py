"""LiteRT (TensorFlow Lite) on CPU, with the XNNPACK delegate that it applies by itself.

A statically quantized file takes and returns int8 where its first and last layers do; its tensors carry their scale
and zero point, and the session converts.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.engine.errors import RuntimeFailure
from worker.engine.runtimes.base import Array


class _LiteRT:
    def __init__(self, path: Path, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 (an optional runtime)

        try:
            self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise RuntimeFailure("runtime_failed", f"LiteRT cannot load the artifact: {error}") from error
        self._runner = self._interpreter.get_signature_runner()
        self._inputs = sorted(self._runner.get_input_details().items(), key=_position)
        self._outputs = sorted(self._runner.get_output_details().items(), key=_position)
        # Samples that the file was made for.
        self._count = min(int(detail["shape"][0]) for _, detail in self._inputs)

    def run(self, inputs: Mapping[str, Array]) -> list[NDArray[Any]]:
        """Inputs go by position, as many samples at a time as the file was made for."""
        most, count = self._count, len(next(iter(inputs.values())))
        parts = [
            self._run([array[start : start + most] for array in inputs.values()]) for start in range(0, count, most)
        ]
        return parts[0] if len(parts) == 1 else [np.concatenate(values) for values in zip(*parts, strict=True)]

    def _run(self, arrays: list[Array]) -> list[NDArray[Any]]:
        pairs = zip(self._inputs, arrays, strict=True)
        results = self._runner(**{name: _stored(array, detail) for (name, detail), array in pairs})
        return [_numbers(results[name], detail) for name, detail in self._outputs]


def _stored(array: Array, detail: Mapping[str, Any]) -> NDArray[Any]:
    """`array` as the file's tensor holds it."""
    scale, zero_point = detail["quantization"]
    if not scale or not np.issubdtype(array.dtype, np.floating):
        return np.ascontiguousarray(array, dtype=detail["dtype"])
    limits = np.iinfo(detail["dtype"])
    integers = np.rint(np.asarray(array, np.float32) / np.float32(scale)) + zero_point
    stored: NDArray[Any] = np.clip(integers, limits.min, limits.max).astype(detail["dtype"])
    return stored


def _numbers(array: NDArray[Any], detail: Mapping[str, Any]) -> NDArray[Any]:
    """What the values of a tensor of the file stand for."""
    scale, zero_point = detail["quantization"]
    return (array.astype(np.float32) - zero_point) * np.float32(scale) if scale else array


def _position(item: tuple[str, Any]) -> int:
    """``args_2`` and ``output_2`` are the third."""
    return int(item[0].rpartition("_")[2])


def open_session(path: Path, threads: int, exact: bool = False) -> _LiteRT:
    """Loads a ``.tflite`` file; arithmetic is always as the file says, so `exact` changes nothing."""
    return _LiteRT(path, threads)
