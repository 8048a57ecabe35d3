"""What the service answers to those who run it: workspaces, keys, webhooks, the audit log, usage."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from modelpress.decode import View
from modelpress.views import Problem


@dataclass(frozen=True, kw_only=True)
class Quotas(View):
    """Limits of a workspace in place of the deployment's. 0: no limit; None: the deployment's."""

    stored_bytes: int | None = None
    jobs: int | None = None
    uploads: int | None = None


@dataclass(frozen=True, kw_only=True)
class Workspace(View):
    """A team's own space."""

    id: str
    name: str | None = None
    quotas: Quotas | None = None
    created_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Key(View):
    """An API key. `key`, the secret itself, is there only in the answer that created it.

    Attributes:
        prefix: how the secret begins, after `mpk_`.
        replaces: id of the key that this one was made to replace.
    """

    id: str
    name: str | None = None
    role: str | None = None
    workspace_id: str | None = None
    prefix: str | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    replaces: str | None = None
    created_at: datetime | None = None
    key: str | None = None

    def __repr__(self) -> str:
        """Without the secret: it must not reach logs by accident."""
        return f"Key(id={self.id!r}, name={self.name!r}, role={self.role!r})"


@dataclass(frozen=True, kw_only=True)
class Webhook(View):
    """An address that is told of jobs' ends. `secret` is there only in the answer that made it.

    Attributes:
        disabled_reason: why the service itself switched it off.
        previous_secret_until: until when the secret before the last rotation signs too.
    """

    id: str
    url: str
    name: str | None = None
    events: tuple[str, ...] = ()
    enabled: bool = True
    disabled_reason: str | None = None
    previous_secret_until: datetime | None = None
    created_at: datetime | None = None
    secret: str | None = None

    def __repr__(self) -> str:
        """Without the secret: it must not reach logs by accident."""
        return f"Webhook(id={self.id!r}, url={self.url!r}, enabled={self.enabled!r})"


@dataclass(frozen=True, kw_only=True)
class Delivery(View):
    """One event on its way to a webhook; status, error and duration are those of the latest attempt.

    `state`: pending, sending, succeeded or failed; `payload` is what is sent.
    """

    id: str
    state: str
    webhook_id: str | None = None
    event: str | None = None
    payload: Mapping[str, Any] | None = None
    attempts: int = 0
    next_attempt_at: datetime | None = None
    attempted_at: datetime | None = None
    response_status: int | None = None
    error: Problem | None = None
    duration_ms: int | None = None
    created_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class AuditEvent(View):
    """What somebody changed, or was refused. `outcome`: ok, or the code of the error that refused it."""

    id: str
    action: str
    workspace_id: str | None = None
    actor: str | None = None
    object_id: str | None = None
    outcome: str | None = None
    request_id: str | None = None
    address: str | None = None
    created_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class JobCounts(View):
    """Jobs that are not over."""

    queued: int = 0
    running: int = 0


@dataclass(frozen=True, kw_only=True)
class UsageLimits(View):
    """What holds for the workspace; 0: no limit. Requests are those of one key."""

    stored_bytes: int = 0
    jobs: int = 0
    uploads: int = 0
    requests_per_s: float = 0
    requests_burst: int = 0


@dataclass(frozen=True, kw_only=True)
class Worker(View):
    """A live worker, and which walls of the sandbox stand around its jobs."""

    id: str
    hostname: str | None = None
    queue: str | None = None
    targets: tuple[str, ...] = ()
    walls: tuple[str, ...] = ()
    missing_walls: Mapping[str, str] | None = None
    started_at: datetime | None = None
    seen_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Usage(View):
    """What a workspace uses now, and how much it may. `workers`: for operators."""

    workspace_id: str
    stored_bytes: int = 0
    models: int = 0
    datasets: int = 0
    artifacts: int = 0
    jobs: JobCounts | None = None
    uploads: int = 0
    limits: UsageLimits | None = None
    workers: tuple[Worker, ...] | None = None
