"""What a job's request and answer look like."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from app.artifacts.schemas import JobArtifactView
from app.recipes import Limits
from app.tables import Job, JobEvent

DAY_S = 86_400

#: Recipes are parsed by `app.recipes.parse_recipe`, which names every fault; here is what OpenAPI says of them.
RecipeInput = Annotated[
    Any,
    WithJsonSchema(
        {
            "title": "Recipe",
            "description": "Steps, or `preset:<name>` (GET /v1/presets), or `auto` with a budget.",
            "anyOf": [
                {
                    "type": "object",
                    "properties": {
                        "steps": {
                            "type": "array",
                            "minItems": 1,
                            "items": {
                                "type": "object",
                                "properties": {"method": {"type": "string"}},
                                "required": ["method"],
                                "description": "A method of GET /v1/methods with its parameters.",
                            },
                        }
                    },
                    "required": ["steps"],
                    "additionalProperties": False,
                },
                {"type": "string", "pattern": "^(auto|preset:.+)$"},
            ],
            "examples": [{"steps": [{"method": "quantize.static"}]}, "preset:fast"],
        }
    ),
]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Timeouts(_Strict):
    """How long the job may wait for a worker, and how long one attempt may run."""

    pending_s: float = Field(DAY_S, gt=0, le=30 * DAY_S)
    run_s: float = Field(4 * 3600, gt=0, le=7 * DAY_S)


class Budget(_Strict):
    """What the planner may spend."""

    trials: int = Field(24, ge=1, le=10_000)
    run_s: float = Field(1800, gt=0, le=7 * DAY_S)


class JobRequest(_Strict):
    """A job to run."""

    model_id: str = Field(max_length=100)
    calibration_dataset_id: str | None = Field(None, max_length=100)
    evaluation_dataset_id: str | None = Field(None, max_length=100)
    training_dataset_id: str | None = Field(None, max_length=100)
    recipe: RecipeInput
    budget: Budget | None = None
    targets: tuple[str, ...] = Field(min_length=1, max_length=16, description="Runtimes: GET /v1/targets.")
    limits: Limits = Field(default_factory=Limits)
    compute: Literal["any", "cpu", "gpu"] = Field("any", description="`any`: the first worker that can.")
    priority: int = Field(0, ge=-100, le=100, description="Higher ones run first.")
    max_attempts: int = Field(3, ge=1, le=10)
    seed: int = Field(0, ge=0, lt=2**31)
    name: str | None = Field(None, max_length=200)
    tags: dict[Annotated[str, Field(max_length=100)], Annotated[str, Field(max_length=500)]] = Field(
        default_factory=dict, max_length=64
    )
    timeouts: Timeouts = Field(default_factory=Timeouts)


class EstimateView(BaseModel):
    """What a job will come to, before it runs."""

    size_bytes: int = Field(description="Of all artifacts together.")
    targets: dict[str, int] = Field(description="Of the artifact for each target.")
    peak_memory_bytes: int = Field(
        description="Of the job's processes together; right within a factor of 1.5 for most."
    )
    run_s: float = Field(description="Of one attempt, without waiting.")
    fits: bool = Field(description="Whether a live worker has so much memory for a job.")
    notes: list[str] = Field(description="What most goes into, and what was not known.")


class ErrorView(BaseModel):
    """Why a job failed."""

    code: str
    detail: str


#: What the view takes from the job's own columns.
_COLUMNS = (
    *("id", "state", "phase", "progress", "eta_s", "attempt", "max_attempts", "created_at", "started_at"),
    *("finished_at", "error", "gate", "memory_bytes", "peak_memory_bytes"),
)


class JobView(BaseModel):
    """A job: where it is, what it brought, and what was asked."""

    id: str
    state: Literal["queued", "running", "canceling", "succeeded", "failed", "canceled"]
    phase: Literal["reading", "compressing", "exporting", "measuring"] | None
    progress: float = Field(ge=0, le=1)
    eta_s: float | None
    queue_position: int | None = Field(description="1 for the queued job that is next by priority and age.")
    queue_note: str | None = Field(description="Why no live worker takes a queued job; null where one can.")
    estimate: dict[str, Any] | None = Field(
        description="What it was estimated to come to: size_bytes, targets, peak_memory_bytes, run_s."
    )
    memory_bytes: int | None = Field(description="Only workers with so much memory for a job take it.")
    peak_memory_bytes: int | None = Field(description="What the job's processes really took together.")
    attempt: int
    created_at: datetime
    started_at: datetime | None = Field(description="When the latest attempt started.")
    finished_at: datetime | None
    error: ErrorView | None
    metrics: dict[str, Any] | None = Field(
        description="`baseline` and `artifacts` per target; the job itself also has layers, steps, curves, ..."
    )
    gate: dict[str, Any] | None
    artifacts: list[JobArtifactView]
    recipe: dict[str, Any] = Field(description="As resolved: every parameter spelled out.")
    model_id: str
    calibration_dataset_id: str | None
    evaluation_dataset_id: str | None
    training_dataset_id: str | None
    targets: list[str]
    limits: Limits
    budget: Budget | None
    compute: Literal["any", "cpu", "gpu"]
    priority: int
    max_attempts: int
    seed: int
    name: str | None
    tags: dict[str, str]
    timeouts: Timeouts

    @classmethod
    def of(
        cls,
        job: Job,
        *,
        metrics: dict[str, Any] | None,
        artifacts: list[JobArtifactView],
        queue_position: int | None,
        queue_note: str | None = None,
    ) -> "JobView":
        """The view of a row and what belongs to it."""
        columns = {name: getattr(job, name) for name in _COLUMNS}
        return cls.model_validate(
            {
                **job.request,
                **columns,
                "recipe": job.recipe,
                "metrics": metrics,
                "artifacts": artifacts,
                "queue_position": queue_position,
                "queue_note": queue_note,
                "estimate": {key: value for key, value in job.estimate.items() if key != "raw"}
                if job.estimate
                else None,
            }
        )


class EventView(BaseModel):
    """One entry of a job's history."""

    id: int
    type: Literal["state", "progress", "log", "metric"]
    data: dict[str, Any]
    created_at: datetime

    @classmethod
    def of(cls, row: JobEvent) -> "EventView":
        """The view of a row."""
        return cls.model_validate({"id": row.number, "type": row.type, "data": row.data, "created_at": row.created_at})


class EventPage(BaseModel):
    """Part of a job's history, oldest first; `next_cursor` is null where there is no more yet."""

    items: list[EventView]
    next_cursor: str | None
