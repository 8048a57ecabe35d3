"""What the job's process and its supervisor say to each other.

The supervisor writes one `Assignment` as JSON to a file in the job's private folder and starts
``python -m worker.runner.child FOLDER``. The child answers with one JSON object per line on the pipe
``REPORT_FD``. The child is not trusted: every line is parsed against these classes, and whatever does not fit ends it.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter

#: File descriptor of the pipe on which the child reports.
REPORT_FD = 3
#: File descriptor of the host-wide measuring lock (flock); held by the child while it takes times.
MEASURE_LOCK_FD = 4
#: Name of the assignment's file in the job's folder.
ASSIGNMENT = "assignment.json"
#: Longest line that the supervisor accepts, in bytes.
MAX_LINE = 8 * 1024**2

Phase = Literal["reading", "compressing", "exporting", "measuring"]
#: Name of a metric or a target: a key in the database, so nothing that had to be cleaned for it.
Name = Annotated[str, Field(pattern=r"^[a-z0-9_.-]{1,100}$")]


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Metrics(_Shape):
    """What is kept per target must be told per target."""

    baseline: dict[Name, dict[str, Any]] = {}
    artifacts: dict[Name, dict[str, Any]] = {}


class _Gate(_Shape):
    passed: bool
    checks: tuple[dict[str, Any], ...]


def _shaped(kind: type[_Shape]) -> AfterValidator:
    def check(value: dict[str, Any]) -> dict[str, Any]:
        kind.model_validate(value)
        return value

    return AfterValidator(check)


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelFile(_Message):
    """A model that a step names, and the format that it has."""

    path: Path
    format: str | None = None


class Assignment(_Message):
    """What the child is to do. Paths are inside its private folder.

    Attributes:
        kind: ``compress``, ``check_model`` or ``check_dataset``.
        model / calibration / evaluation / training: local files, absent where not needed.
        models: id -> file, of the models that steps name.
        model_format, task, dataset_kind, filename: what the uploader said about them.
        recipe: as resolved by `app.recipes.parse_recipe`.
        checkpoint: folder with the unpacked checkpoint to continue from.
        output: folder in which artifacts and checkpoints are left.
        threads: CPU threads to use.
    """

    kind: Literal["compress", "check_model", "check_dataset"]
    output: Path
    model: Path | None = None
    models: dict[str, ModelFile] = {}
    model_format: str | None = None
    task: str | None = None
    dataset: Path | None = None
    dataset_kind: str | None = None
    filename: str | None = None
    calibration: Path | None = None
    evaluation: Path | None = None
    evaluation_dataset_id: str | None = None
    training: Path | None = None
    recipe: dict[str, Any] | None = None
    targets: tuple[str, ...] = ()
    limits: dict[str, Any] = {}
    seed: int = 0
    threads: int = 1
    device: Literal["cpu", "cuda"] = "cpu"
    checkpoint: Path | None = None
    provenance: dict[str, Any] = {}


class Progress(_Message):
    """How far the job is: `fraction` in [0, 1] over the whole job."""

    type: Literal["progress"] = "progress"
    phase: Phase
    fraction: float = Field(ge=0, le=1)
    eta_s: float | None = None


class Log(_Message):
    """A line for the user."""

    type: Literal["log"] = "log"
    level: Literal["info", "warning", "error"] = "info"
    message: str = Field(max_length=20_000)


class MetricPoint(_Message):
    """A figure worth showing live."""

    type: Literal["metric"] = "metric"
    name: str
    value: Any


class CheckpointSaved(_Message):
    """A finished checkpoint: one file (safetensors + JSON in a zip) under the output folder."""

    type: Literal["checkpoint"] = "checkpoint"
    label: str
    file: str


class ArtifactFile(_Message):
    """One artifact, as a file name under the output folder."""

    target: str
    format: Name
    file: str
    filename: str = Field(pattern=r"^[^\x00-\x1f\x7f/\\]+$")
    manifest: dict[str, Any] = {}


class Result(_Message):
    """The last line of a job that ran to its end.

    Attributes:
        facts: for checks: ModelFacts or DatasetFacts as JSON.
        metrics: ``{"baseline": {target: {...}}, "artifacts": {target: {...}}, "layers": [...], ...}``.
        gate: ``{"passed", "checks": [...]}`` or null for checks of uploads.
    """

    type: Literal["result"] = "result"
    facts: dict[str, Any] | None = None
    artifacts: tuple[ArtifactFile, ...] = ()
    metrics: Annotated[dict[Name, Any], _shaped(_Metrics)] = {}
    gate: Annotated[dict[str, Any], _shaped(_Gate)] | None = None


class Failure(_Message):
    """The last line of a job that ended with an error of its own. `user`: a retry would give the same answer."""

    type: Literal["failure"] = "failure"
    code: str
    detail: str
    user: bool


Report = Annotated[Progress | Log | MetricPoint | CheckpointSaved | Result | Failure, Field(discriminator="type")]
REPORT: TypeAdapter[Report] = TypeAdapter(Report)
