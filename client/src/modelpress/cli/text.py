"""Figures as people read them."""

from collections.abc import Sequence
from datetime import datetime

NONE = "-"


def size(count: int | None) -> str:
    """Bytes in decimal units, as files are listed by most tools: 1 kB is 1000 bytes."""
    if count is None:
        return NONE
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.5:
            return f"{value:.3g} {unit}"
    return f"{value / 1000:.3g} TB"


def seconds(value: float | None) -> str:
    """A length of time."""
    if value is None:
        return NONE
    if value < 60:
        return f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def milliseconds(value: float | None) -> str:
    """A latency."""
    return NONE if value is None else f"{value:.3g} ms"


def when(value: datetime | None) -> str:
    """A point in time, in the reader's zone."""
    return NONE if value is None else value.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def interval(ends: Sequence[float] | None, scale: float = 1.0, digits: int = 2) -> str:
    """An interval's two ends in brackets, with a space before; nothing where there is none."""
    if not ends or len(ends) != 2:
        return ""
    return f" [{ends[0] * scale:.{digits}f}, {ends[1] * scale:.{digits}f}]"


def is_fraction(metric: str) -> bool:
    """Metrics in 0..1 that people read in percent."""
    return "accuracy" in metric or "iou" in metric.lower()
