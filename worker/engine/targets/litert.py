"""LiteRT: a ``.tflite`` with int8 weights, and int8 kernels where the network is quantized.

The converter reads the quantized form itself, so the scales in the file are ours. Static: int8 from the input of a
layer to its result. Dynamic: int8 weights, and layers that quantize their input while running. Files take one sample
at a time: the converter cannot keep a symbolic batch through most networks.
"""

import contextlib
import io
from pathlib import Path
from typing import Any

from torch import fx

from worker.engine.errors import RuntimeFailure
from worker.engine.formats.fold import fold_batch_norm
from worker.engine.network import Network
from worker.engine.quantized.decomposed import decomposed
from worker.engine.quantized.form import Quantization
from worker.engine.runtimes.base import missing
from worker.engine.runtimes.litert import open_session
from worker.engine.targets.base import Target
from worker.engine.targets.float_export import FloatExport
from worker.engine.targets.floats import Floats
from worker.engine.targets.quiet import quiet


def export_float(floats: Floats) -> FloatExport:
    """Write ``folder/float.tflite``. Raises `RuntimeFailure` (``export_failed``)."""
    folded = fold_batch_norm(floats.network)
    return FloatExport(_convert(folded.module, folded, floats.folder / "float.tflite", None), folded)


def export_quantized(quantization: Quantization, exported: FloatExport, path: Path) -> Path:
    """Write the quantized network; nothing of the float file is needed. Raises `RuntimeFailure` (``export_failed``)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    module = decomposed(quantization, stored=False)
    return _convert(module, quantization.network, path, not quantization.activations)


def _convert(module: fx.GraphModule, network: Network, path: Path, dynamic: bool | None) -> Path:
    """Write a module for one sample at a time.

    Args:
        dynamic: whether integer layers find the range of their input while running; None for a float module.
    """
    with quiet(), contextlib.redirect_stdout(io.StringIO()):  # it tells of its progress there
        import litert_torch  # noqa: PLC0415 (an optional exporter)

        try:
            model = litert_torch.convert(module, network.examples(1), quant_config=_folding(dynamic), enable_x64=True)
            model.export(str(path))
        except Exception as error:
            told = str(error).strip().splitlines() or [type(error).__name__]
            raise RuntimeFailure("export_failed", f"the model cannot be written for LiteRT: {told[0][:500]}") from error
    return path


def _folding(dynamic: bool | None) -> Any:
    """Tells the converter which kernels to fold quantizers into."""
    if dynamic is None:
        return None
    from litert_torch.quantize import pt2e_quantizer, quant_config  # noqa: PLC0415 (an optional exporter)

    settings = pt2e_quantizer.get_symmetric_quantization_config(is_per_channel=True, is_dynamic=dynamic)
    return quant_config.QuantConfig(pt2e_quantizer=pt2e_quantizer.PT2EQuantizer().set_global(settings))


LITERT = Target(
    name="litert",
    suffix=".tflite",
    available=lambda: missing("litert_torch", "litert") or missing("ai_edge_litert", "litert"),
    export_float=export_float,
    export_quantized=export_quantized,
    session=open_session,
)
