"""Datasets of kind ``text``: ``.jsonl`` with a field ``text``, or ``.txt`` with a sample per line."""

import json
from collections.abc import Iterator
from pathlib import Path

from worker.engine.data import codes
from worker.engine.errors import InvalidDataset

#: Longest line that is read, in bytes.
MAX_LINE = 16 * 1024**2


def read(path: Path) -> Iterator[str]:
    """The samples of a text file, one at a time; lines without text are skipped.

    Raises:
        InvalidDataset: not UTF-8, a line that is too long, or a line of JSON without ``text``.
    """
    jsonl = _is_jsonl(path)
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), start=1):
            text = _decoded(line, number)
            if text:
                yield _field(text, number) if jsonl else text


def _is_jsonl(path: Path) -> bool:
    """Whether the first line that says anything is a JSON object."""
    with path.open("rb") as file:
        for line in iter(lambda: file.readline(MAX_LINE + 1), b""):
            if line.strip():
                return line.lstrip(b"\xef\xbb\xbf \t").startswith(b"{")
    return False


def _decoded(line: bytes, number: int) -> str:
    if len(line) > MAX_LINE:
        raise InvalidDataset(codes.TEXT_INVALID, f"Line {number} is longer than {MAX_LINE} bytes; break it up.")
    try:
        return line.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise InvalidDataset(codes.TEXT_INVALID, f"Line {number} is not UTF-8: {error.reason}.") from error


def _field(line: str, number: int) -> str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidDataset(codes.TEXT_INVALID, f"Line {number} is not JSON: {str(error)[:200]}.") from error
    text = record.get("text") if isinstance(record, dict) else None
    if not isinstance(text, str):
        raise InvalidDataset(codes.TEXT_INVALID, f'Line {number} has no text; each line is like {{"text": "..."}}.')
    return text
