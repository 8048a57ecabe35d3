"""Figures and times as people read them; static/js/format.js writes them alike."""

from datetime import UTC, datetime

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_COUNTS = ("", " k", " M", " G", " T")


def size(count: int | float | None) -> str:
    """Bytes: ``12.3 MB``, in steps of a thousand."""
    return "–" if count is None else _scaled(float(count), _UNITS, " ")


def count(number: int | float | None) -> str:
    """A number of things: ``11.7 M``."""
    return "–" if number is None else _scaled(float(number), _COUNTS, "")


def percent(share: float | None, digits: int = 1) -> str:
    """A share of one: ``12.5 %``."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def duration(seconds: float | None) -> str:
    """``850 ms``, ``12.3 s``, ``4 min 5 s``, ``2 h 3 min``, ``5 d 2 h``."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    for larger, smaller, unit, part in ((86_400, 3600, "d", "h"), (3600, 60, "h", "min"), (60, 1, "min", "s")):
        if whole >= larger:
            rest = whole % larger // smaller
            return f"{whole // larger} {unit}" + (f" {rest} {part}" if rest else "")
    return f"{whole} s"


def when(time: datetime | None) -> str:
    """A time in UTC, to the minute."""
    return "–" if time is None else time.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def shape(dims: list[int | str]) -> str:
    """``N × 3 × 224 × 224``."""
    return " × ".join(str(dim) for dim in dims) or "scalar"


def _scaled(value: float, units: tuple[str, ...], gap: str) -> str:
    for unit in units:
        if value < 999.5 or unit == units[-1]:
            text = f"{value:.0f}" if value >= 999.5 or (value == int(value) and unit == units[0]) else f"{value:.3g}"
            return f"{text}{gap}{unit}"
        value /= 1000
    raise AssertionError("the last unit takes any value")


FILTERS = {
    "size": size,
    "count": count,
    "percent": percent,
    "duration": duration,
    "when": when,
    "shape": shape,
}
