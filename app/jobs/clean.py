"""JSON that Postgres can store: what a job's process reports may hold what JSONB refuses."""

import math
from typing import Any

from app.tables.base import Json


def clean(value: Any) -> Any:
    """`value` without NUL characters and lone surrogates (replaced), and with null for numbers that are not finite."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {clean(str(key)): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return value


def clean_error(code: str, detail: str) -> Json:
    """Why a job failed, as its row keeps it."""
    return {"code": clean(code), "detail": clean(detail)}
