"""Traces for OpenTelemetry: a request, the job that it queues, and each attempt of that job are one trace.

Spans go to ``otlp_endpoint``, with the SDK of the extra ``otel``; without either, everything here does nothing.
A message on the queue says only "look", so a job's trace travels in its row, as a W3C ``traceparent``.
The standard ``OTEL_*`` variables (sampler, headers, resource) are read by the SDK itself.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NoOpTracerProvider, Span, SpanKind, StatusCode, Tracer, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.config import Settings

#: Seconds that one export may take: an orderly end must not wait long for a collector that is away.
_PATIENCE_S = 3.0
#: A job's process is not trusted: what it reports makes so long codes and so many phases at most.
_LONGEST_CODE, _MOST_PHASES = 100, 50
_W3C = TraceContextTextMapPropagator()
_NOTHING = NoOpTracerProvider()

log = logging.getLogger(__name__)


class _Process:
    """Where the spans of this process go."""

    provider: TracerProvider = _NOTHING


def start(settings: Settings, service: str) -> TracerProvider | None:
    """Sends spans of this process, named `service`, from now on. None: traces are off, or the extra is missing."""
    stop()
    if not settings.otlp_endpoint:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider as SdkProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError:
        log.warning("no traces are sent: install the extra otel (pip install 'modelpress-server[otel]')")
        return None
    exporter = OTLPSpanExporter(f"{settings.otlp_endpoint.rstrip('/')}/v1/traces", timeout=_PATIENCE_S)
    provider = SdkProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _Process.provider = provider
    return provider


def stop() -> None:
    """Sends what is left and ends; a collector that is away is waited for some seconds at most."""
    provider, _Process.provider = _Process.provider, _NOTHING
    shutdown = getattr(provider, "shutdown", None)  # only the SDK's provider has one
    if shutdown is not None:
        shutdown()


def name_request(method: str, route: str) -> None:
    """Calls the span of the current request by its route, as FastAPI does for those that it answers."""
    current = trace.get_current_span()
    current.update_name(f"{method} {route}")
    current.set_attribute("http.route", route)


def traceparent() -> str | None:
    """The current span as a W3C ``traceparent``; None outside of any."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return carrier.get("traceparent")


@contextmanager
def span(
    name: str,
    attributes: Mapping[str, Any] | None = None,
    *,
    parent: str | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
) -> Iterator[Span]:
    """A span that lasts as long as the block.

    Args:
        parent: a ``traceparent``; None: the current span is the parent.
    """
    with _tracer().start_as_current_span(
        name, _context(parent), kind, attributes=dict(attributes or {}), record_exception=False
    ) as made:
        yield made


def past(name: str, duration_s: float) -> None:
    """A span, below the current one, of something that took `duration_s` and ends now."""
    now = time.time_ns()
    _tracer().start_span(name, start_time=now - int(duration_s * 1e9)).end(now)


def fail(code: str) -> None:
    """Marks the current span as failed, with a stable error code and nothing else: details may be private."""
    current = trace.get_current_span()
    current.set_status(StatusCode.ERROR)
    current.set_attribute("error.type", code[:_LONGEST_CODE])


class Phases:
    """Spans, below the one that is current when this is made, of phases that follow each other."""

    def __init__(self, prefix: str) -> None:
        self._start = partial(_tracer().start_span, context=_context(None))
        self._prefix = prefix
        self._name: str | None = None
        self._span: Span | None = None
        self._made = 0

    def enter(self, name: str) -> None:
        """`name` goes on, or begins and ends the one before; past `_MOST_PHASES` the last one goes on."""
        if name != self._name and self._made < _MOST_PHASES:
            self.end()
            self._name, self._span = name, self._start(f"{self._prefix}{name}")
            self._made += 1

    def end(self) -> None:
        """Ends the last phase."""
        if self._span is not None:
            self._span.end()
        self._name = self._span = None


def _tracer() -> Tracer:
    return _Process.provider.get_tracer("modelpress")


def _context(parent: str | None) -> Context | None:
    return None if parent is None else _W3C.extract({"traceparent": parent})
