"""Logs of every process: text for people or JSON lines for machines, with who and what each line is about.

A line carries what `bind` and `bound` have put around it: ``request_id``, ``workspace_id``, ``job_id``, ``attempt``;
and ``trace_id`` within a recorded trace. API keys, passwords and tokens are struck out of whatever is logged.
"""

import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from opentelemetry import trace
from pydantic import SecretStr
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from app.config import Settings

#: What is struck out wherever it stands: API keys (their public prefix stays), passwords in URLs, bearer tokens. The
#: first of each three is in every text that the pattern finds, in lower case: looking for it costs far less.
_PATTERNS = (
    ("mpk_", re.compile(r"\b(mpk_[0-9a-z]{12})_[0-9a-z]{32}\b"), r"\1_***"),
    ("://", re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s/@]+(?=@)"), r"\1***"),
    ("bearer", re.compile(r"(\bBearer\s+)(?!mpk_)[^\s'\",]+", re.IGNORECASE), r"\1***"),
)
#: A shorter secret of the settings would strike out ordinary words.
_SHORTEST_SECRET = 8

_context: ContextVar[Mapping[str, Any]] = ContextVar("log_context", default=MappingProxyType({}))


def bind(**fields: Any) -> None:
    """Adds `fields` to every later line of this task, up to the end of the `bound` block that it is in."""
    _context.set({**_context.get(), **fields})


@contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Adds `fields` to every line that is logged within the block, also by tasks and threads that it starts."""
    token = _context.set({**_context.get(), **fields})
    try:
        yield
    finally:
        _context.reset(token)


def setup(settings: Settings) -> None:
    """Sends all logs of this process to stderr as the settings say; what others have set up is replaced."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = JsonFormatter if settings.log_format == "json" else TextFormatter
    handler.setFormatter(formatter(secrets_of(settings)))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    logging.captureWarnings(True)
    # Who called and from which thread is in no line, and costs a tenth of one
    # (https://docs.python.org/3/howto/logging.html#optimization).
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def secrets_of(settings: Settings) -> list[str]:
    """The secrets that stand in the settings, passwords in URLs among them."""
    values = [value.get_secret_value() for _, value in settings if isinstance(value, SecretStr)]
    for url in (settings.database_url, settings.broker_url):
        try:
            values.append(str(make_url(url).password or ""))
        except ArgumentError:  # whoever connects will tell
            continue
    return [value for value in values if len(value) >= _SHORTEST_SECRET]


class _Formatter(logging.Formatter):
    """What both formats share. `secrets`: texts that never appear."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._secrets = tuple(secrets)

    def struck(self, text: str) -> str:
        """`text` without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        lower = text.lower()
        for sign, pattern, instead in _PATTERNS:
            if sign in lower:
                text = pattern.sub(instead, text)
        return text

    def fields(self, more: Mapping[str, Any]) -> dict[str, Any]:
        """What the line is about: the context, and `more`; secrets may stand there."""
        fields = {**_context.get(), **more}
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            fields["trace_id"] = trace.format_trace_id(span.trace_id)
        return {name: value for name, value in fields.items() if value is not None}

    def trouble(self, record: logging.LogRecord) -> str:
        """The stack trace, if there is one."""
        return self.struck(self.formatException(record.exc_info)) if record.exc_info else ""


class JsonFormatter(_Formatter):
    """One JSON object on one line: ``time, level, logger, message``, the context, ``exception``.

    ``extra={"fields": {...}}`` of a call adds what its message tells, for machines.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        about = self.fields(getattr(record, "fields", {}))
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.struck(record.getMessage()),
            **{name: self.struck(value) if isinstance(value, str) else value for name, value in about.items()},
        }
        if trouble := self.trouble(record):
            line["exception"] = trouble
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(_Formatter):
    """``time LEVEL logger: message [name=value ...]``; further lines are indented, so that none can pass for a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        about = " ".join(f"{name}={value}" for name, value in self.fields({}).items())
        message = self.struck(f"{record.getMessage()} [{about}]" if about else record.getMessage())
        lines = [message, self.trouble(record)]
        text = "\n".join(line for line in lines if line).replace("\r", "\\r").replace("\n", "\n    ")
        return f"{_time(record)} {record.levelname:7} {record.name}: {text}"


def _time(record: logging.LogRecord) -> str:
    return f"{_second(int(record.created))}.{int(record.msecs):03}Z"


@lru_cache(maxsize=2)
def _second(since_1970: int) -> str:
    return datetime.fromtimestamp(since_1970, UTC).strftime("%Y-%m-%dT%H:%M:%S")
