"""What a target is: how a network gets into its file, and how that file is run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from worker.engine.network import Network
from worker.engine.quantized.form import Quantization
from worker.engine.runtimes.base import Session


@dataclass(frozen=True)
class FloatExport:
    """The float baseline in a target's file; made once per network, since exporters are slow.

    Attributes:
        path: the file, as a user would get it.
        network: what was exported: the given network with batch norms folded.
        onnx: the ONNX form that quantized files are derived from, None where the target needs none.
        values: FX node name -> name of its value in `onnx`.
    """

    path: Path
    network: Network
    onnx: Path | None = None
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """One runtime.

    Attributes:
        name: key in `app.recipes.TARGETS`.
        suffix: of the artifact's file name.
        available: None, or why this worker cannot serve the target; imports nothing heavy.
        export_float: (network, folder) -> the baseline, in `folder`.
        export_quantized: (network, quantization, float export, path) -> `path`, written.
        session: (path, threads, exact) -> a session of the runtime; `exact` asks for float32 arithmetic where the
            runtime would choose less. For a process that must not load torch take `worker.engine.runtimes` itself.
    """

    name: str
    suffix: str
    available: Callable[[], str | None]
    export_float: Callable[[Network, Path], FloatExport]
    export_quantized: Callable[[Network, Quantization, FloatExport, Path], Path]
    session: Callable[[Path, int, bool], Session]
