"""Usage as the API shows it."""

from datetime import datetime

from pydantic import BaseModel, Field

from app.tables import Worker


class JobsUsage(BaseModel):
    """Jobs that are not over."""

    queued: int
    running: int = Field(description="With those that are being canceled.")


class UsageLimits(BaseModel):
    """What holds for the workspace; 0: no limit."""

    stored_bytes: int
    jobs: int = Field(description="Queued and running together.")
    uploads: int = Field(description="At the same time.")
    requests_per_s: float = Field(description="Of one key.")
    requests_burst: int = Field(description="Of one key, at once.")


class WorkerView(BaseModel):
    """A live worker, and the walls around its jobs."""

    id: str
    hostname: str
    queue: str
    targets: list[str]
    walls: list[str] = Field(description="Walls of the sandbox that stand.")
    missing_walls: dict[str, str] = Field(description="Walls that cannot stand there, and why.")
    started_at: datetime
    seen_at: datetime

    @classmethod
    def of(cls, worker: Worker) -> "WorkerView":
        """The view of a row."""
        sandbox = worker.capabilities.get("sandbox", {})
        return cls(
            id=worker.id,
            hostname=worker.hostname,
            queue=worker.queue,
            targets=worker.targets,
            walls=sandbox.get("walls", []),
            missing_walls=sandbox.get("missing", {}),
            started_at=worker.started_at,
            seen_at=worker.seen_at,
        )


class Usage(BaseModel):
    """What a workspace uses now, and how much it may."""

    workspace_id: str
    stored_bytes: int = Field(description="The same bytes once; with artifacts, and checkpoints of running jobs.")
    models: int
    datasets: int
    artifacts: int
    jobs: JobsUsage
    uploads: int = Field(description="Being received.")
    limits: UsageLimits
    workers: list[WorkerView] | None = Field(None, description="For operators: all live workers.")
