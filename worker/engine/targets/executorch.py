"""ExecuTorch: a ``.pte`` whose layers run in XNNPACK, on int8 where the network is quantized.

XNNPACK takes signed int8 activations, int8 weights with a scale per channel, and quantizes inputs while running for
linear layers and ordinary two-dimensional convolutions. What it has no kernel for runs in portable operators.
"""

from pathlib import Path
from typing import Any, Final

import torch
from torch import fx, nn

from worker.engine.errors import RuntimeFailure
from worker.engine.formats.fold import fold_batch_norm
from worker.engine.network import Network
from worker.engine.quantized.decomposed import decomposed
from worker.engine.quantized.form import Quantization
from worker.engine.runtimes.base import missing
from worker.engine.runtimes.executorch import open_session
from worker.engine.targets.base import Target
from worker.engine.targets.float_export import FloatExport
from worker.engine.targets.floats import Floats
from worker.engine.targets.quiet import quiet

#: Samples that a file reserves memory for, where its batch can be symbolic.
MOST_SAMPLES: Final = 16


def export_float(floats: Floats) -> FloatExport:
    """Write ``folder/float.pte``. Raises `RuntimeFailure` (``export_failed``)."""
    folded = fold_batch_norm(floats.network)
    return FloatExport(_write(folded.module, folded, floats.folder / "float.pte"), folded)


def export_quantized(quantization: Quantization, exported: FloatExport, path: Path) -> Path:
    """Write the quantized network; nothing of the float file is needed. Raises `RuntimeFailure` (``export_failed``)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return _write(decomposed(quantization, measured=_quantizes_inputs), quantization.network, path)


def _quantizes_inputs(layer: nn.Module) -> bool:
    """Whether XNNPACK has a kernel for the layer that quantizes its input while running."""
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)


def _write(module: fx.GraphModule, network: Network, path: Path) -> Path:
    """Write the first of the possible forms that runs: for batches, else for single samples."""
    fixed = [spec.name for spec in network.inputs if any(isinstance(dim, str) for dim in spec.shape[spec.batched :])]
    if fixed:
        raise RuntimeFailure(
            "export_failed", f"executorch: sizes must be fixed, other than the batch's; {', '.join(fixed)} has others"
        )
    reason: Exception | None = None
    for most in (MOST_SAMPLES, 1) if network.batched else (1,):
        try:
            path.write_bytes(_program(module, network, most))
            session = open_session(path, torch.get_num_threads())
            for count in {1, most}:
                session.run({spec.name: spec.example(count).numpy() for spec in network.inputs})
        except Exception as error:  # noqa: BLE001 (the exporter raises whatever its passes do)
            reason = error
        else:
            return path
    path.unlink(missing_ok=True)
    told = str(reason).strip().splitlines() or [type(reason).__name__]
    raise RuntimeFailure("export_failed", f"the model cannot be written for ExecuTorch: {told[0][:500]}") from reason


def _program(module: fx.GraphModule, network: Network, most: int) -> bytes:
    """The file for batches of 1 to `most` samples."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner  # noqa: PLC0415 (optional)
    from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower  # noqa: PLC0415 (optional)
    from executorch.exir.passes.sym_shape_eval_pass import ConstraintBasedSymShapeEvalPass  # noqa: PLC0415 (optional)

    batch = torch.export.Dim("batch", min=1, max=most) if most > 1 else None
    shapes: Any = None if batch is None else tuple({0: batch} for _ in network.inputs)
    with quiet():
        program = torch.export.export(module, network.examples(most), dynamic_shapes=shapes)
        edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        # Memory is planned for the largest batch, not for the one of the examples.
        config = ExecutorchBackendConfig(sym_shape_eval_pass=ConstraintBasedSymShapeEvalPass())
        content: bytes = edge.to_executorch(config).buffer
    return content


EXECUTORCH = Target(
    name="executorch",
    suffix=".pte",
    available=lambda: missing("executorch", "executorch"),
    export_float=export_float,
    export_quantized=export_quantized,
    session=open_session,
)
