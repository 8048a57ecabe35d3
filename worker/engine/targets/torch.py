"""PyTorch: a ``.pt2`` of plain aten operators that loads with torch alone; int8 weights for size, float arithmetic."""

from pathlib import Path

from worker.engine.formats.fold import fold_batch_norm
from worker.engine.formats.pt2_writer import write_pt2
from worker.engine.quantized.form import Quantization
from worker.engine.quantized.lowered import lowered
from worker.engine.runtimes.base import missing
from worker.engine.runtimes.torch import open_session
from worker.engine.targets.base import Target
from worker.engine.targets.float_export import FloatExport
from worker.engine.targets.floats import Floats


def export_float(floats: Floats) -> FloatExport:
    """Write ``folder/float.pt2``."""
    folded = fold_batch_norm(floats.network)
    path = floats.folder / "float.pt2"
    write_pt2(folded, path)
    return FloatExport(path, folded)


def export_quantized(quantization: Quantization, exported: FloatExport, path: Path) -> Path:
    """Write the quantized network; nothing of the float file is needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_pt2(lowered(quantization), path)
    return path


TORCH = Target(
    name="torch",
    suffix=".pt2",
    available=lambda: missing("torch", "worker"),
    export_float=export_float,
    export_quantized=export_quantized,
    session=open_session,
)
