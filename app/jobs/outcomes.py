"""How a lease can end, as the worker tells it, and what a lease is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class LeaseState(StrEnum):
    """What a worker learns when it renews: for anything but ``ok`` it stops the job's process."""

    OK = "ok"
    LOST = "lost"
    CANCEL = "cancel"
    TIMED_OUT = "timed_out"


@dataclass(frozen=True)
class Offer:
    """What a worker can do. `queue`: cpu, gpu or checks; `targets`: names of the runtimes that it has."""

    id: str
    hostname: str
    queue: str
    targets: Sequence[str] = ()
    capabilities: Mapping[str, Any] = field(default_factory=dict)

    @property
    def memory_bytes(self) -> int | None:
        """What a job may use; None: it does not say."""
        return job_memory_bytes(self.capabilities)


def job_memory_bytes(capabilities: Mapping[str, Any]) -> int | None:
    """The memory that a job may use on a worker of these capabilities; None: it does not say."""
    found = (capabilities.get("job") or {}).get("memory_bytes")
    return found if isinstance(found, int) and found > 0 else None


def job_threads(capabilities: Mapping[str, Any]) -> int:
    """The processors that a job may use there."""
    found = (capabilities.get("job") or {}).get("threads")
    return found if isinstance(found, int) and found > 0 else 1


@dataclass(frozen=True)
class InputFile:
    """One uploaded file that a job reads; its bytes are in the store under workspace and digest."""

    id: str
    sha256: str
    size_bytes: int
    filename: str
    format: str | None = None
    task: str | None = None
    kind: str | None = None
    facts: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Lease:
    """The right to run one attempt of one job, until it expires or is lost.

    Attributes:
        inputs: by role: model, calibration, evaluation, training; models that steps name by their ids; for checks:
            model or dataset.
        request: what the user sent, with defaults (limits, seed, ...).
        queued_at: since when it has waited.
        trace_parent: W3C ``traceparent`` of the span that queued it.
    """

    job_id: str
    token: str
    workspace_id: str
    kind: str
    queue: str | None
    attempt: int
    max_attempts: int
    run_timeout_s: float
    recipe: Mapping[str, Any] | None
    targets: Sequence[str]
    request: Mapping[str, Any]
    inputs: Mapping[str, InputFile]
    queued_at: datetime | None = None
    trace_parent: str | None = None


@dataclass(frozen=True)
class NewArtifact:
    """A compressed model whose bytes are in the store already."""

    target: str
    format: str
    filename: str
    size_bytes: int
    sha256: str
    manifest: Mapping[str, Any]


@dataclass(frozen=True)
class NewCheckpoint:
    """A checkpoint whose bytes are in the store already."""

    label: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Finished:
    """The job's process ran to its end.

    Attributes:
        metrics: ``{"baseline": {target: {...}}, "artifacts": {target: {...}}, "layers": [...], ...}``.
        gate: a failed gate makes the job failed with ``limits_not_met``.
        facts: for checks: what the file is.
        peak_memory_bytes: the most that its processes held together; 0: not known.
    """

    artifacts: Sequence[NewArtifact] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    gate: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] | None = None
    peak_memory_bytes: int = 0


@dataclass(frozen=True)
class UserError:
    """The input is at fault: no further attempt. For checks: the file is rejected."""

    code: str
    detail: str


@dataclass(frozen=True)
class Fault:
    """The process died or something around it failed: another attempt while there is one."""

    code: str
    detail: str


@dataclass(frozen=True)
class TimedOut:
    """The process was stopped because ``run_s`` was over."""


@dataclass(frozen=True)
class Stopped:
    """The process was stopped because the user asked to cancel."""


Outcome = Finished | UserError | Fault | TimedOut | Stopped
