"""Every target and the numbers that it can hold: what ``GET /v1/targets`` answers."""

from typing import Any

from app.recipes import TARGETS, Grid
from tools.reference.markdown import code, table
from tools.reference.markdown import page as _page

ABOUT = """
What each runtime can store and compute. What its files are, and what a worker needs to offer it, is in
[targets.md](../targets.md).
"""


def page() -> str:
    """docs/reference/targets.md."""
    names = sorted(TARGETS)
    fields = [name for name in Grid.model_fields if name not in ("name", "notes")]
    rows = [[code(field), *(_value(getattr(TARGETS[name], field)) for name in names)] for field in fields]
    notes = [f"**{name}**: {'; '.join(TARGETS[name].notes)}" for name in names if TARGETS[name].notes]
    return _page("Targets", ABOUT, table(["", *names], rows), *notes)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)
