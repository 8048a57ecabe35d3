"""What the service answers, as frozen dataclasses; see `View.raw` for fields that are not spelled out here."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from modelpress.decode import View

T = TypeVar("T")

TERMINAL = ("succeeded", "failed", "canceled")


@dataclass(frozen=True, kw_only=True)
class Problem(View):
    """Why an upload was rejected or a job failed."""

    code: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class TensorSpec(View):
    """One input, output or column. `shape` holds sizes; a name or None where the size is free."""

    name: str
    dtype: str | None = None
    shape: tuple[Any, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Upload(View):
    """What models and datasets have in common. `state`: checking, ready or rejected."""

    id: str
    state: str
    name: str | None = None
    filename: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    metadata: Mapping[str, Any] | None = None
    created_at: datetime | None = None
    error: Problem | None = None

    @property
    def checked(self) -> bool:
        """A worker has read it: it is ready or rejected."""
        return self.state != "checking"


@dataclass(frozen=True, kw_only=True)
class Model(Upload):
    """An uploaded model."""

    format: str | None = None
    task: str | None = None
    inputs: tuple[TensorSpec, ...] | None = None
    outputs: tuple[TensorSpec, ...] | None = None
    parameters: int | None = None


@dataclass(frozen=True, kw_only=True)
class Dataset(Upload):
    """An uploaded dataset."""

    kind: str | None = None
    columns: tuple[TensorSpec, ...] | None = None
    samples: int | None = None


@dataclass(frozen=True, kw_only=True)
class MetricValue(View):
    """Quality on the evaluation set, e.g. accuracy as a fraction, with its 95 % interval."""

    name: str
    value: float
    ci95: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class MetricDrop(View):
    """How much worse than the float model on the same samples; positive is worse.

    `unit`: fraction (0.01 is one point of accuracy) or relative; `ci95` is the paired 95 % interval.
    """

    value: float
    unit: str = "fraction"
    ci95: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Fidelity(View):
    """How close the outputs are to the float model's, in the same runtime."""

    sqnr_db: float | None = None
    cosine: float | None = None
    agreement: float | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation(View):
    """What was measured on."""

    dataset_id: str | None = None
    samples: int | None = None


@dataclass(frozen=True, kw_only=True)
class Measurement(View):
    """Figures of one exported file in its runtime. `latency_ms`: p50, p90, p99 at batch 1; `notes`: sentences."""

    size_bytes: int | None = None
    parameters: int | None = None
    nonzero_parameters: int | None = None
    macs: int | None = None
    latency_ms: Mapping[str, float] | None = None
    throughput_per_s: float | None = None
    peak_memory_bytes: int | None = None
    metric: MetricValue | None = None
    metric_drop: MetricDrop | None = None
    fidelity: Fidelity | None = None
    evaluation: Evaluation | None = None
    notes: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Change(View):
    """What a step changed: ratios of after to before, and the metric after it less the one before it."""

    size_ratio: float | None = None
    macs_ratio: float | None = None
    metric: float | None = None


@dataclass(frozen=True, kw_only=True)
class StepEffect(View):
    """The model before the first step, or after one: figures taken between the steps, not on an exported file.

    `method` and `change` are of a step alone; `size_bytes` is what the weights take; `fidelity_db` the SQNR to the
    uploaded model.
    """

    method: str | None = None
    seconds: float | None = None
    parameters: int | None = None
    nonzero_parameters: int | None = None
    macs: int | None = None
    size_bytes: int | None = None
    quantized_layers: int | None = None
    metric: MetricValue | None = None
    fidelity_db: float | None = None
    change: Change | None = None


@dataclass(frozen=True, kw_only=True)
class Metrics(View):
    """Per target: the float model exported to it (`baseline`) and the artifact; the rest is in `raw`.

    `before` and `steps`: the model as uploaded, and after each step. `notes`: all that is worth knowing of the model,
    the data and every target, those of the artifacts among them.
    """

    baseline: Mapping[str, Measurement] | None = None
    artifacts: Mapping[str, Measurement] | None = None
    before: StepEffect | None = None
    steps: tuple[StepEffect, ...] | None = None
    notes: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class GateCheck(View):
    """One limit on one target. `measured` and its interval are in the limit's own unit."""

    target: str
    limit: str
    passed: bool
    allowed: float | None = None
    measured: float | None = None
    ci95: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Gate(View):
    """The verdict: one failing check fails it."""

    passed: bool
    checks: tuple[GateCheck, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Artifact(View):
    """A compressed model, ready to download."""

    id: str
    target: str | None = None
    job_id: str | None = None
    format: str | None = None
    filename: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    download_url: str | None = None
    manifest: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Package(View):
    """A layout that inference servers read; `code` and `detail` say why an artifact does not fit it."""

    layout: str
    available: bool
    summary: str | None = None
    code: str | None = None
    detail: str | None = None
    download_url: str | None = None


@dataclass(frozen=True, kw_only=True)
class Job(View):
    """A compression job. `progress` is 0..1; `state` one of queued, running, canceling and `TERMINAL`.

    Attributes:
        queue_note: why no live worker takes it while it is queued.
        estimate: what it was estimated to come to.
        memory_bytes: only workers with so much memory for a job take it; `peak_memory_bytes` is what it took.
        recipe: as resolved, every parameter spelled out.
    """

    id: str
    state: str
    name: str | None = None
    phase: str | None = None
    progress: float | None = None
    eta_s: float | None = None
    queue_position: int | None = None
    queue_note: str | None = None
    estimate: Mapping[str, Any] | None = None
    memory_bytes: int | None = None
    peak_memory_bytes: int | None = None
    attempt: int = 0
    max_attempts: int | None = None
    model_id: str | None = None
    calibration_dataset_id: str | None = None
    evaluation_dataset_id: str | None = None
    training_dataset_id: str | None = None
    recipe: Any = None
    targets: tuple[str, ...] = ()
    limits: Mapping[str, Any] | None = None
    budget: Mapping[str, float] | None = None
    compute: str | None = None
    priority: int | None = None
    seed: int | None = None
    tags: Mapping[str, str] | None = None
    timeouts: Mapping[str, float] | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: Problem | None = None
    metrics: Metrics | None = None
    gate: Gate | None = None
    artifacts: tuple[Artifact, ...] | None = None

    def _repr_html_(self) -> str:
        """How a notebook shows it: before and after."""
        from modelpress import notebook

        return notebook.job(self)

    @property
    def finished(self) -> bool:
        """Nothing more will happen to it unless it is retried."""
        return self.state in TERMINAL


@dataclass(frozen=True, kw_only=True)
class Estimate(View):
    """What a job is expected to need, before it is queued. `targets`: bytes of the artifact for each."""

    size_bytes: int | None = None
    targets: Mapping[str, int] | None = None
    peak_memory_bytes: int | None = None
    run_s: float | None = None
    fits: bool | None = None
    notes: tuple[str, ...] | None = None

    def _repr_html_(self) -> str:
        """How a notebook shows it."""
        from modelpress import notebook

        return notebook.estimate(self)


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of a job's history. `type`: state, progress, log or metric; `id` resumes after it."""

    id: str
    type: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Page(Generic[T]):
    """Part of a list, newest first; `next_cursor` asks for the next part, None at the end."""

    items: tuple[T, ...]
    next_cursor: str | None = None

    def _repr_html_(self) -> str:
        """How a notebook shows it: a table."""
        from modelpress import notebook

        return notebook.page(self)
