"""What flows through a job: the model as compressed so far, and the surroundings that a method may use."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from torch import Tensor

from app.recipes import Grid
from worker.engine.data.samples import Samples
from worker.engine.network import Network

if TYPE_CHECKING:
    from worker.engine.quantized.form import Quantization


class Reporter(Protocol):
    """Where the engine tells how it is going; the runner sends it on, tests collect it."""

    def progress(self, phase: str, fraction: float) -> None:
        """`fraction` of the whole job is done; `phase` is reading, compressing, exporting or measuring."""

    def log(self, message: str, level: str = "info") -> None:
        """A line for the user; level info, warning or error."""

    def metric(self, name: str, value: Any) -> None:
        """A figure worth showing live."""

    def checkpoint(self, label: str, file: Path) -> None:
        """A finished checkpoint file."""

    def measuring(self) -> AbstractContextManager[None]:
        """Holds the host's measuring lock, so that no two jobs time each other."""


@dataclass(frozen=True)
class Partial:
    """How far a step is, so that a new attempt goes on from there.

    Attributes:
        state: JSON values, such as the number of epochs done.
        tensors: weights, the optimizer's moments, ...; contiguous, on CPU.
    """

    state: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class Context:
    """What a method may use.

    Attributes:
        grids: target name -> numeric grid, of every target that the job asks for.
        calibration / training: samples, never overlapping the evaluation samples; None where not given.
        device: ``cpu`` or ``cuda``.
        folder: private scratch folder.
        saturating: whether this processor's kernels for uint8 times int8 add pairs of products in 16 bits.
        keep: stores how far the step is, with a label for the user; call it seldom (an epoch), it writes a file.
        models: id -> how to read the model that a step names; each call reads its file anew.
        resumed: what an earlier attempt at this very step kept last; None: start at its beginning.
        original: the float model as it was uploaded; what distillation learns from.
    """

    grids: Mapping[str, Grid]
    reporter: Reporter
    folder: Path
    calibration: Samples | None = None
    training: Samples | None = None
    device: str = "cpu"
    threads: int = 1
    seed: int = 0
    task: str | None = None
    saturating: bool = False
    keep: Callable[[str, Partial], None] = lambda label, partial: None
    resumed: Partial | None = None
    models: Mapping[str, Callable[[], Network]] = field(default_factory=dict)
    original: Network | None = None

    def progress(self, fraction: float) -> None:
        """Tells how far the current step is, 0..1."""
        self.reporter.progress("compressing", fraction)


@dataclass
class Compressed:
    """A model on its way through a recipe.

    Attributes:
        network: the current float network; methods that change weights or structure replace it.
        quantized: target name -> quantization to apply when exporting to it; empty until a quantize step.
        layers: per-layer report for ``metrics.layers``: name, kind, bits, sqnr_db, output_sqnr_db, share.
        sensitivity: ``metrics.sensitivity``: per layer name, bits chosen, and the cost of each choice in dB.
        pruned: names of the float network's parameters in which weights were set to zero: zeros there stay zero in
            later trainings.
        pareto: ``metrics.pareto``: what a search found that nothing smaller is better than.
        curves: ``metrics.curves``: name -> one value per epoch, of all trainings in turn.
        notes: what the user should know (layers left alone and why, ...).
    """

    network: Network
    quantized: dict[str, "Quantization"] = field(default_factory=dict)
    layers: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    curves: dict[str, list[float]] = field(default_factory=dict)
    sensitivity: list[dict[str, Any]] = field(default_factory=list)
    pruned: tuple[str, ...] = ()
    pareto: list[dict[str, Any]] = field(default_factory=list)

    def with_curves(self, curves: Mapping[str, list[float]]) -> Self:
        """The same with the `curves` of one more training behind those of earlier ones."""
        joined = {name: [*self.curves.get(name, []), *values] for name, values in curves.items()}
        return replace(self, curves={**self.curves, **joined})

    def to(self, device: str) -> Self:
        """Move networks and quantized weights, in place: steps run on the worker's device, exporters on the CPU."""
        self.network.to(device)
        moved = {id(form): form.to(device) for form in self.quantized.values()}
        self.quantized = {target: moved[id(form)] for target, form in self.quantized.items()}
        return self
