"""Types of request fields that hold only what Postgres can store: no NUL, no lone surrogates, no NaN."""

import json
from typing import Annotated, Any

from pydantic import AfterValidator, Field

_MOST_METADATA_BYTES = 64 * 1024


def _storable(text: str) -> str:
    if not is_storable(text):
        raise ValueError("must be Unicode text without NUL characters and lone surrogates")
    return text


def _storable_json(value: dict[str, Any]) -> dict[str, Any]:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except (ValueError, RecursionError) as error:
        raise ValueError("must be plain JSON without NaN, infinities and lone surrogates") from error
    if "\\u0000" in text:
        raise ValueError("must not hold NUL characters")
    if size > _MOST_METADATA_BYTES:
        raise ValueError(f"must have at most {_MOST_METADATA_BYTES} bytes as JSON")
    return value


def is_storable(text: str) -> bool:
    """Whether Postgres can hold `text`; nothing is found under a text that it cannot."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


Text = Annotated[str, AfterValidator(_storable)]
#: A name that a user gives.
Name = Annotated[Text, Field(min_length=1, max_length=200, description="For people; need not be unique.")]
Metadata = Annotated[dict[str, Any], AfterValidator(_storable_json), Field(description="Free JSON of the uploader.")]
