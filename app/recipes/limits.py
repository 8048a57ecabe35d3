"""Limits that an artifact must keep; the gate checks them on the exported file."""

from pydantic import Field

from app.recipes.described import Described


class Limits(Described):
    """What the user demands. Absent (null) limits are not checked.

    Attributes:
        max_metric_drop: how much worse the artifact may be than the float model in the same target; a fraction
            for accuracy, R2 and IoU (0.01 is one point), relative for errors and perplexity.
        max_size_ratio: bytes of the artifact over those of the float model in the same target.
        max_size_bytes: bytes of the artifact.
        max_latency_ratio: median latency of one sample over that of the float model in the same target.
        max_latency_ms: median latency of one sample.
        max_macs_ratio: multiply-accumulates over those of the uploaded model.
        min_sqnr_db: signal to quantization noise of the outputs, beside those of the float model.
        strict: the unfavourable end of the two-sided paired interval must keep the metric limit, not the estimate.
        confidence: of that interval.
    """

    max_metric_drop: float | None = Field(None, ge=0)
    max_size_ratio: float | None = Field(None, gt=0)
    max_size_bytes: int | None = Field(None, gt=0)
    max_latency_ratio: float | None = Field(None, gt=0)
    max_latency_ms: float | None = Field(None, gt=0)
    max_macs_ratio: float | None = Field(None, gt=0)
    min_sqnr_db: float | None = None
    strict: bool = False
    confidence: float = Field(0.95, gt=0.5, lt=1)
