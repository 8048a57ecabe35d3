"""OpenVINO on CPU: an artifact is a zip with one ``.xml`` and one ``.bin``."""

import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from worker.engine.errors import InvalidModel, RuntimeFailure
from worker.engine.runtimes.base import Array

#: The two entries of an artifact.
XML, BIN = "model.xml", "model.bin"
_LARGEST: Final = 1 << 34


def unpack(path: Path, folder: Path) -> Path:
    """Unzips an artifact into `folder`; returns the path of the ``.xml``.

    Raises:
        InvalidModel: it holds anything but the two files, or more bytes than it declares.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {info.filename: info for info in archive.infolist()}
            if set(entries) != {XML, BIN} or len(archive.infolist()) != 2:
                raise InvalidModel("file_damaged", f"an OpenVINO artifact holds {XML} and {BIN} and nothing else")
            if sum(info.file_size for info in entries.values()) > _LARGEST:
                raise InvalidModel("archive_too_large", "the OpenVINO artifact is larger than 16 GiB")
            for name in (XML, BIN):
                archive.extract(name, folder)
    except zipfile.BadZipFile as error:
        raise InvalidModel("file_damaged", f"not a zip of {XML} and {BIN}: {error}") from error
    return folder / XML


class _OpenVino:
    def __init__(self, path: Path, threads: int, exact: bool) -> None:
        import openvino  # noqa: PLC0415 (an optional runtime)

        config: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        if exact:
            config["INFERENCE_PRECISION_HINT"] = "f32"
        with tempfile.TemporaryDirectory(prefix="openvino-") as folder:
            try:
                core = openvino.Core()
                # The weights are memory-mapped by default, from a folder that is about to go.
                core.set_property({"ENABLE_MMAP": False})
                self._model = core.compile_model(core.read_model(str(unpack(path, Path(folder)))), "CPU", config)
            except RuntimeError as error:
                raise RuntimeFailure("runtime_failed", f"OpenVINO cannot load the artifact: {error}") from error
        self._names = {name for port in self._model.inputs for name in port.get_names()}
        self._request = self._model.create_infer_request()

    def run(self, inputs: Mapping[str, Array]) -> list[NDArray[Any]]:
        results = self._request.infer({name: value for name, value in inputs.items() if name in self._names})
        return [results[port].copy() for port in self._model.outputs]


def open_session(path: Path, threads: int, exact: bool = False) -> _OpenVino:
    """Loads an artifact; `exact` keeps float parts in float32 where the CPU would compute them in bfloat16."""
    return _OpenVino(path, threads, exact)
