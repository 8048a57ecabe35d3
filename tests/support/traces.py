"""A real collector of traces on loopback: OTLP over HTTP, as an exporter sends it."""

import gzip
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.support.loopback import Handler, answering


@dataclass(frozen=True)
class Seen:
    """A span that arrived; ids in hexadecimal, `parent` empty for a root."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent: str
    failed: bool
    seconds: float
    attributes: dict[str, Any]


@dataclass
class Traces:
    """What has arrived so far."""

    endpoint: str
    spans: list[Seen] = field(default_factory=list)

    def named(self, name: str, timeout_s: float = 30.0) -> Seen:
        """The first span of this name, as soon as it is there."""
        deadline = time.monotonic() + timeout_s
        while True:
            for span in self.spans:
                if span.name == name:
                    return span
            assert time.monotonic() < deadline, (name, [span.name for span in self.spans])
            time.sleep(0.05)

    def take(self, body: bytes) -> None:
        """Reads one export."""
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = next(one.value.string_value for one in resource.resource.attributes if one.key == "service.name")
            for scope in resource.scope_spans:
                self.spans += [_seen(service, span) for span in scope.spans]


def _seen(service: str, span: Any) -> Seen:
    return Seen(
        service,
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.status.code == 2,
        (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        {one.key: one.value.string_value or one.value.int_value for one in span.attributes},
    )


@contextmanager
def collector() -> Iterator[Traces]:
    """A collector until the block ends."""

    class Collect(Handler):
        def do_POST(self) -> None:
            body = self.body()
            traces.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    with answering(Collect) as port:
        traces = Traces(f"http://127.0.0.1:{port}")
        yield traces
