"""What a client asks for: a job's request, and one HTTP call as data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, TypedDict
from urllib.parse import quote

from modelpress.multipart import Body


def segment(text: str) -> str:
    """An id as one segment of a path: whatever the caller passes, it stays within its noun."""
    if not text.strip("."):
        raise ValueError(f"not an id: {text!r}")
    return quote(text, safe="")


class Limits(TypedDict, total=False):
    """What the artifact must keep, measured on the exported file; absent limits are not checked.

    `max_metric_drop` is a fraction for accuracy (0.01 is one point), relative for errors and perplexity.
    """

    max_metric_drop: float
    max_size_ratio: float
    max_size_bytes: int
    max_latency_ratio: float
    max_latency_ms: float
    max_macs_ratio: float
    min_sqnr_db: float
    strict: bool
    confidence: float


class Quota(TypedDict, total=False):
    """Quotas of a workspace to change; 0: no limit, None: the deployment's."""

    stored_bytes: int | None
    jobs: int | None
    uploads: int | None


class AuditFilters(TypedDict, total=False):
    """Which events of the audit log are wanted; a time without a zone is local."""

    since: datetime
    until: datetime
    workspace_id: str
    actor: str
    action: str
    object_id: str
    outcome: str


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """The body of `POST /v1/jobs`; fields left at None are not sent, so that the service's defaults hold.

    Attributes:
        recipe: `{"steps": [{"method": "quantize.static"}]}`, `"auto"` or `"preset:<name>"`.
        compute: any, cpu or gpu.
        timeouts: `pending_s` and `run_s`.
    """

    model_id: str
    recipe: Mapping[str, Any] | str
    targets: Sequence[str]
    calibration_dataset_id: str | None = None
    evaluation_dataset_id: str | None = None
    training_dataset_id: str | None = None
    limits: Limits | None = None
    budget: Mapping[str, float] | None = None
    compute: str | None = None
    priority: int | None = None
    max_attempts: int | None = None
    seed: int | None = None
    name: str | None = None
    tags: Mapping[str, str] | None = None
    timeouts: Mapping[str, float] | None = None

    def body(self) -> dict[str, Any]:
        """The JSON object to send."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP call under `/v1`, before any transport is involved.

    Attributes:
        path: relative to `/v1`, or an absolute path or URL that the service gave.
        stream: the caller reads the body itself; it is not read within the retries.
        once: the caller tries again itself.
    """

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    json: Any = None
    upload: Body | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: bool = False
    once: bool = False
