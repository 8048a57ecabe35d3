"""Jobs and what they leave: events, checkpoints, metrics, artifacts; and the workers that run them."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, String, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import InstrumentedAttribute, Mapped, mapped_column

from app.tables.base import Base, Bytes, CreatedAt, Json, Sha256, new_id

#: States that a job keeps, unless it is retried.
TERMINAL = ("succeeded", "failed", "canceled")
#: The jobs that the API shows.
_SHOWN = text("kind = 'compress'")


class Job(Base):
    """A unit of work: a compression job, or the check of an upload (which the API does not show).

    Both are queued, claimed by lease and run in the sandbox by the same code; `kind` tells them apart.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint("state IN ('queued','running','canceling','succeeded','failed','canceled')", name="state"),
        CheckConstraint("kind IN ('compress','check_model','check_dataset')", name="kind"),
        Index("ix_jobs_listing", "workspace_id", "kind", "created_at", "id"),
        Index(
            "ix_jobs_active",
            "queue",
            "state",
            postgresql_where=text("state IN ('queued','running','canceling')"),
        ),
        #: The order in which a workspace's jobs are claimed.
        Index(
            "ix_jobs_waiting",
            "workspace_id",
            text("priority DESC"),
            "created_at",
            "id",
            postgresql_where=text("state IN ('queued','running')"),
        ),
        #: Places in the queue.
        Index(
            "ix_jobs_queue",
            text("priority DESC"),
            "created_at",
            "id",
            postgresql_where=text("kind = 'compress' AND state = 'queued'"),
        ),
        #: Lists that ask for a state, a name or a tag: without these they read every job of the workspace.
        Index("ix_jobs_state", "workspace_id", "state", "created_at", "id", postgresql_where=_SHOWN),
        Index("ix_jobs_name", "workspace_id", "name", "created_at", "id", postgresql_where=_SHOWN),
        Index("ix_jobs_tags", "tags", postgresql_using="gin", postgresql_where=_SHOWN),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("job"))
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    kind: Mapped[str] = mapped_column(server_default="compress")
    #: ``cpu``, ``gpu`` or ``checks``; null: any of cpu and gpu.
    queue: Mapped[str | None]
    name: Mapped[str | None]
    tags: Mapped[Json] = mapped_column(server_default="{}")
    #: The request as sent, with defaults; what it says is not repeated in columns unless SQL needs it.
    request: Mapped[Json] = mapped_column(server_default="{}")
    #: The recipe as resolved: every parameter spelled out.
    recipe: Mapped[Json | None]
    targets: Mapped[list[Any]] = mapped_column(server_default="[]")
    # Ids without foreign keys: a model can be deleted once no job needs it, its id stays here as lineage.
    model_id: Mapped[str | None] = mapped_column(index=True)
    #: Also what a ``check_dataset`` reads.
    calibration_dataset_id: Mapped[str | None]
    evaluation_dataset_id: Mapped[str | None]
    training_dataset_id: Mapped[str | None]
    #: Models that steps of the recipe name, each once.
    step_model_ids: Mapped[list[Any]] = mapped_column(server_default="[]")

    state: Mapped[str] = mapped_column(server_default="queued")
    phase: Mapped[str | None]
    progress: Mapped[float] = mapped_column(server_default="0")
    eta_s: Mapped[float | None]
    priority: Mapped[int] = mapped_column(server_default="0")
    attempt: Mapped[int] = mapped_column(server_default="0")
    max_attempts: Mapped[int] = mapped_column(server_default="3")
    pending_timeout_s: Mapped[float] = mapped_column(server_default="86400")
    run_timeout_s: Mapped[float] = mapped_column(server_default="14400")

    lease_token: Mapped[str | None]
    #: Moves with each renewal, by which maintenance sees that the worker is there; nothing ends at that time by itself.
    lease_expires_at: Mapped[datetime | None]
    worker_id: Mapped[str | None]
    #: Not claimable before this time: the pause after an infrastructure fault.
    not_before: Mapped[datetime | None]
    last_event: Mapped[int] = mapped_column(BigInteger, server_default="0")

    #: W3C ``traceparent`` of the span that queued the job; null where it was not traced.
    trace_parent: Mapped[str | None] = mapped_column(String(55))
    #: What it was estimated to come to when it was queued: sizes, peak_memory_bytes, run_s; null: not known then.
    estimate: Mapped[Json | None]
    #: A worker needs so much for it; null: any will do.
    memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    #: What its process took in the last attempt that ran to its end.
    peak_memory_bytes: Mapped[int | None] = mapped_column(BigInteger)

    error: Mapped[Json | None]
    gate: Mapped[Json | None]
    created_at: Mapped[CreatedAt]
    queued_at: Mapped[CreatedAt]
    looked_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


#: Role of a dataset -> the column that names it.
DATASETS: dict[str, InstrumentedAttribute[str | None]] = {
    "calibration": Job.calibration_dataset_id,
    "evaluation": Job.evaluation_dataset_id,
    "training": Job.training_dataset_id,
}


class JobEvent(Base):
    """One row of a job's append-only history; `number` counts from 1 per job."""

    __tablename__ = "job_events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    #: ``state``, ``progress``, ``log`` or ``metric``.
    type: Mapped[str]
    data: Mapped[Json]
    created_at: Mapped[CreatedAt]


class Checkpoint(Base):
    """State from which a new attempt continues (safetensors + JSON in one zip in the store)."""

    __tablename__ = "checkpoints"
    __table_args__ = (ForeignKeyConstraint(["workspace_id", "sha256"], ["blobs.workspace_id", "blobs.sha256"]),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    #: Order of checkpoints within the job.
    number: Mapped[int] = mapped_column(primary_key=True)
    workspace_id: Mapped[str]
    attempt: Mapped[int]
    label: Mapped[str]
    size_bytes: Mapped[Bytes]
    sha256: Mapped[Sha256]
    created_at: Mapped[CreatedAt]


class Metric(Base):
    """One measured document of a job: ``baseline`` or ``artifacts`` per target, or ``layers``, ``steps``, ..."""

    __tablename__ = "metrics"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    #: The target it was measured on; empty where it belongs to the whole job.
    target: Mapped[str] = mapped_column(primary_key=True, server_default="")
    value: Mapped[Any] = mapped_column(JSONB)
    created_at: Mapped[CreatedAt]


class Artifact(Base):
    """A compressed model, ready to download."""

    __tablename__ = "artifacts"
    __table_args__ = (ForeignKeyConstraint(["workspace_id", "sha256"], ["blobs.workspace_id", "blobs.sha256"]),)

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("art"))
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"), index=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    target: Mapped[str]
    format: Mapped[str]
    filename: Mapped[str]
    size_bytes: Mapped[Bytes]
    sha256: Mapped[Sha256]
    manifest: Mapped[Json]
    created_at: Mapped[CreatedAt]


class EstimateRatio(Base):
    """What jobs of a kind really took over what they were estimated to: a mean of logarithms that forgets slowly."""

    __tablename__ = "estimate_ratios"

    #: Methods of the recipe, in order, and targets; empty: all jobs of the queue.
    methods: Mapped[str] = mapped_column(primary_key=True)
    targets: Mapped[str] = mapped_column(primary_key=True)
    queue: Mapped[str] = mapped_column(primary_key=True)
    jobs: Mapped[int]
    #: Natural logarithms of measured over estimated.
    memory: Mapped[float]
    run: Mapped[float]


class Worker(Base):
    """A live worker process and what it can do."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    hostname: Mapped[str]
    #: The one queue it serves.
    queue: Mapped[str]
    targets: Mapped[list[Any]]
    #: Processor, memory, GPU, library versions, walls of the sandbox.
    capabilities: Mapped[Json]
    started_at: Mapped[CreatedAt]
    seen_at: Mapped[CreatedAt]
