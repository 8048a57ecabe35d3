"""OpenVINO, through ONNX: its PyTorch front end fails on quantized graphs, its ONNX front end fuses QDQ pairs."""

import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

from worker.engine.errors import RuntimeFailure
from worker.engine.quantized.form import Quantization
from worker.engine.runtimes.base import missing
from worker.engine.runtimes.openvino import BIN, XML, open_session
from worker.engine.targets import onnxruntime
from worker.engine.targets.base import Target
from worker.engine.targets.float_export import FloatExport
from worker.engine.targets.floats import Floats


def export_float(floats: Floats) -> FloatExport:
    """Write ``float.zip``, by way of ONNX."""
    return replace(floats.onnx, path=_convert(floats.onnx.path, floats.folder / "float.zip"))


def export_quantized(quantization: Quantization, exported: FloatExport, path: Path) -> Path:
    """Write the quantized form of `exported`, by way of a quantized ONNX file."""
    with tempfile.TemporaryDirectory(prefix="openvino-", dir=path.parent) as folder:
        source = onnxruntime.export_quantized(quantization, exported, Path(folder) / "quantized.onnx", folds=False)
        return _convert(source, path)


def _convert(source: Path, path: Path) -> Path:
    """ONNX file -> zip of ``.xml`` and ``.bin``; weights keep their types.

    Raises:
        RuntimeFailure: ``export_failed``.
    """
    import openvino  # noqa: PLC0415 (an optional runtime)

    with tempfile.TemporaryDirectory(prefix="openvino-", dir=path.parent) as folder:
        try:
            model = openvino.convert_model(str(source))
            openvino.save_model(model, str(Path(folder) / XML), compress_to_fp16=False)
        except RuntimeError as error:
            raise RuntimeFailure("export_failed", f"OpenVINO cannot read the model: {error}") from error
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name in (XML, BIN):
                archive.write(Path(folder) / name, name)
    return path


OPENVINO = Target(
    name="openvino",
    suffix=".zip",
    available=lambda: missing("openvino", "worker"),
    export_float=export_float,
    export_quantized=export_quantized,
    session=open_session,
)
