"""ONNX Runtime: the float graph with QuantizeLinear / DequantizeLinear pairs that it fuses to integer kernels."""

from operator import attrgetter
from pathlib import Path

from worker.engine.quantized.form import Quantization
from worker.engine.runtimes.base import missing
from worker.engine.runtimes.onnxruntime import open_session
from worker.engine.targets.base import Target
from worker.engine.targets.float_export import FloatExport
from worker.engine.targets.onnx_export import save
from worker.engine.targets.onnx_qdq import quantized_onnx


def export_quantized(quantization: Quantization, exported: FloatExport, path: Path, *, folds: bool = True) -> Path:
    """Write the quantized form of `exported`; `folds`: see `Storage`."""
    if exported.onnx is None:
        raise TypeError("the float export has no ONNX graph")
    save(quantized_onnx(exported.onnx, exported.values, quantization, folds=folds), path)
    return path


ONNXRUNTIME = Target(
    name="onnxruntime",
    suffix=".onnx",
    available=lambda: missing("onnxruntime", "worker"),
    export_float=attrgetter("onnx"),
    export_quantized=export_quantized,
    session=open_session,
)
