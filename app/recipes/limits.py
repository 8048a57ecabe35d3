"""Limits that an artifact must keep; the gate checks them on the exported file."""

from pydantic import BaseModel, ConfigDict, Field


class Limits(BaseModel):
    """What the user demands. Absent (null) limits are not checked.

    Attributes:
        max_metric_drop: how much worse the artifact may be than the float model in the same target; a fraction
            for accuracy, R2 and IoU (0.01 is one point), relative for errors and perplexity.
        strict: the unfavourable end of the two-sided paired interval must keep the metric limit, not the estimate.
        confidence: of that interval.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_metric_drop: float | None = Field(None, ge=0)
    max_size_ratio: float | None = Field(None, gt=0)
    max_size_bytes: int | None = Field(None, gt=0)
    max_latency_ratio: float | None = Field(None, gt=0)
    max_latency_ms: float | None = Field(None, gt=0)
    max_macs_ratio: float | None = Field(None, gt=0)
    min_sqnr_db: float | None = None
    strict: bool = False
    confidence: float = Field(0.95, gt=0.5, lt=1)
