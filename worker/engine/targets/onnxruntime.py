"""ONNX Runtime: the float graph with QuantizeLinear / DequantizeLinear pairs that it fuses to integer kernels."""

from pathlib import Path

import onnx

from worker.engine.network import Network
from worker.engine.quantized.form import Quantization
from worker.engine.runtimes.base import missing
from worker.engine.runtimes.onnxruntime import open_session
from worker.engine.targets.base import FloatExport, Target
from worker.engine.targets.onnx_export import export_onnx, save
from worker.engine.targets.onnx_qdq import quantized_onnx


def export_quantized(network: Network, quantization: Quantization, exported: FloatExport, path: Path) -> Path:
    """Write the quantized form of `exported`."""
    save(quantized_onnx(onnx.load(str(exported.onnx)), exported.values, quantization), path)
    return path


ONNXRUNTIME = Target(
    name="onnxruntime",
    suffix=".onnx",
    available=lambda: missing("onnxruntime", "worker"),
    export_float=export_onnx,
    export_quantized=export_quantized,
    session=open_session,
)
