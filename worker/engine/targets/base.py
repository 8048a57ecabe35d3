"""What a target is: how a network gets into its file, and how that file is run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from worker.engine.quantized.form import Quantization
from worker.engine.runtimes.base import Session
from worker.engine.targets.float_export import FloatExport
from worker.engine.targets.floats import Floats


@dataclass(frozen=True)
class Target:
    """One runtime.

    Attributes:
        name: key in `app.recipes.TARGETS`.
        suffix: of the artifact's file name.
        available: None, or why this worker cannot serve the target; imports nothing heavy.
        export_float: the network's exports -> the baseline, in their folder.
        export_quantized: (quantization, float export, path) -> `path`, written.
        session: (path, threads, exact) -> a session of the runtime; `exact` asks for float32 arithmetic where the
            runtime would choose less. For a process that must not load torch take `worker.engine.runtimes` itself.
    """

    name: str
    suffix: str
    available: Callable[[], str | None]
    export_float: Callable[[Floats], FloatExport]
    export_quantized: Callable[[Quantization, FloatExport, Path], Path]
    session: Callable[[Path, int, bool], Session]
