"""Reading JSON whose shape nobody vouches for: what is of another kind counts as empty."""

from collections.abc import Mapping, Sequence
from typing import Any


def mapping(value: object) -> Mapping[str, Any]:
    """`value` where it is a JSON object."""
    return value if isinstance(value, dict) else {}


def sequence(value: object) -> Sequence[Any]:
    """`value` where it is a JSON array."""
    return value if isinstance(value, list) else ()


def text(value: object) -> str:
    """`value` where it is a JSON string."""
    return value if isinstance(value, str) else ""


def number(value: object) -> float | None:
    """`value` where it is a JSON number."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
