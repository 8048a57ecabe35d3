"""TensorRT on an NVIDIA GPU: an artifact is a zip of the engine and the ONNX file that it was built from.

Device memory comes from torch's allocator, so this session loads torch. Not run on hardware yet.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from worker.engine.errors import InvalidModel, RuntimeFailure
from worker.engine.runtimes.base import Array

#: The two entries of an artifact.
ENGINE, ONNX = "model.engine", "model.onnx"
_LARGEST: Final = 1 << 34


def engine_of(path: Path) -> bytes:
    """The engine in an artifact.

    Raises:
        InvalidModel: it holds anything but the two files, or one that is too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if sorted(info.filename for info in entries) != sorted((ENGINE, ONNX)):
                raise InvalidModel("file_damaged", f"a TensorRT artifact holds {ENGINE} and {ONNX} and nothing else")
            if sum(info.file_size for info in entries) > _LARGEST:
                raise InvalidModel("archive_too_large", "the TensorRT artifact is larger than 16 GiB")
            return archive.read(ENGINE)
    except zipfile.BadZipFile as error:
        raise InvalidModel("file_damaged", f"not a zip of {ENGINE} and {ONNX}: {error}") from error


class _TensorRT:
    def __init__(self, path: Path) -> None:
        content = engine_of(path)
        import tensorrt  # noqa: PLC0415 (an optional runtime)
        import torch  # noqa: PLC0415 (other runtimes are measured without it)

        self._torch = torch
        self._runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            detail = "TensorRT cannot load the engine: it was built for another GPU or version of TensorRT"
            raise RuntimeFailure("runtime_failed", detail)
        self._context = self._engine.create_execution_context()
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        is_input = {name: self._engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT for name in names}
        self._inputs = [name for name in names if is_input[name]]
        self._outputs = [name for name in names if not is_input[name]]
        self._types = {name: np.dtype(tensorrt.nptype(self._engine.get_tensor_dtype(name))) for name in names}

    def run(self, inputs: Mapping[str, Array]) -> list[NDArray[Any]]:
        torch = self._torch
        with torch.cuda.stream(self._stream):
            buffers = {name: self._input(name, inputs[name]) for name in self._inputs}
            for name in self._outputs:
                shape, dtype = tuple(self._context.get_tensor_shape(name)), getattr(torch, self._types[name].name)
                buffers[name] = torch.empty(shape, dtype=dtype, device="cuda")
                self._context.set_tensor_address(name, buffers[name].data_ptr())
            if not self._context.execute_async_v3(self._stream.cuda_stream):
                raise RuntimeFailure("runtime_failed", "TensorRT could not run the engine")
            self._stream.synchronize()
            return [buffers[name].cpu().numpy() for name in self._outputs]

    def _input(self, name: str, array: Array) -> Any:
        """The array on the GPU, told to the engine."""
        tensor = self._torch.from_numpy(np.ascontiguousarray(array, dtype=self._types[name])).cuda()
        if not self._context.set_input_shape(name, tuple(tensor.shape)):
            raise RuntimeFailure("runtime_failed", f"the engine takes no {name} of shape {tuple(tensor.shape)}")
        self._context.set_tensor_address(name, tensor.data_ptr())
        return tensor


def open_session(path: Path, threads: int, exact: bool = False) -> _TensorRT:
    """Loads an artifact; the GPU decides about threads, and arithmetic was fixed when the engine was built."""
    return _TensorRT(path)
