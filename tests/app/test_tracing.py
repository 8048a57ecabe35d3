"""Traces, read as a real collector receives them."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app import tracing
from app.config import Settings
from app.tables import Job
from tests.support.traces import Traces, collector

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
WITHOUT = """
import sys
for name in ("opentelemetry.sdk", "opentelemetry.exporter"):
    sys.modules[name] = None
import logging
logging.basicConfig()
import app.main, worker.tasks
from app import tracing
from app.config import Settings
assert tracing.start(Settings(_env_file=None, otlp_endpoint="http://127.0.0.1:1"), "x") is None
with tracing.span("a") as span:
    assert tracing.traceparent() is None
    tracing.past("b", 1.0)
    tracing.fail("c")
phases = tracing.Phases("p ")
phases.enter("d")
phases.end()
tracing.stop()
"""


@pytest.fixture
def traces() -> Iterator[Traces]:
    with collector() as traces:
        yield traces
        tracing.stop()


async def test_a_request_and_the_check_that_it_queues_are_one_trace(make_api: Any, traces: Traces) -> None:
    api = await make_api(otlp_endpoint=traces.endpoint)
    client = await api.client()
    client.headers["traceparent"] = f"00-{TRACE}-{PARENT}-01"
    model = await api.upload(client)
    assert (await client.get("/healthz")).status_code == 200
    tracing.stop()
    request = traces.named("POST /v1/models")
    assert (request.service, request.trace_id, request.parent) == ("modelpress-api", TRACE, PARENT)
    assert request.attributes["http.response.status_code"] == 201
    assert [span.name for span in traces.spans] == ["POST /v1/models"]
    async with api.services.database.transaction() as session:
        job = (await session.scalars(select(Job).where(Job.model_id == model["id"]))).one()
    assert job.trace_parent == f"00-{TRACE}-{request.span_id}-01"


async def test_a_polled_read_is_named_like_any_other(make_api: Any, traces: Traces) -> None:
    api = await make_api(otlp_endpoint=traces.endpoint)
    client = await api.client()
    assert (await client.get("/v1/jobs/job_0123456789abcdefghij")).status_code == 404
    tracing.stop()
    request = traces.named("GET /v1/jobs/{job_id}")
    assert request.attributes["http.route"] == "/v1/jobs/{job_id}"
    assert request.attributes["http.response.status_code"] == 404


async def test_nothing_is_traced_without_an_endpoint(api: Any) -> None:
    client = await api.client()
    client.headers["traceparent"] = f"00-{TRACE}-{PARENT}-01"
    model = await api.upload(client)
    async with api.services.database.transaction() as session:
        assert (await session.scalars(select(Job).where(Job.model_id == model["id"]))).one().trace_parent is None


def test_spans_of_phases_follow_each_other(traces: Traces) -> None:
    tracing.start(Settings(_env_file=None, otlp_endpoint=traces.endpoint), "test")
    with tracing.span("job run", {"modelpress.attempt": 1}, parent=f"00-{TRACE}-{PARENT}-01"):
        phases = tracing.Phases("job ")
        for phase in ("reading", "reading", "compressing"):
            phases.enter(phase)
        phases.end()
        tracing.past("job wait", 2.0)
        tracing.fail("out_of_memory")
    tracing.stop()
    run = traces.named("job run")
    assert (run.trace_id, run.parent, run.failed) == (TRACE, PARENT, True)
    assert run.attributes == {"modelpress.attempt": 1, "error.type": "out_of_memory"}
    below = {span.name: span for span in traces.spans if span is not run}
    assert list(below) == ["job reading", "job compressing", "job wait"]
    assert {span.parent for span in below.values()} == {run.span_id}
    assert below["job wait"].seconds == pytest.approx(2.0)


def test_a_job_that_changes_its_phase_all_the_time(traces: Traces) -> None:
    tracing.start(Settings(_env_file=None, otlp_endpoint=traces.endpoint), "test")
    phases = tracing.Phases("job ")
    for number in range(1000):
        phases.enter(str(number))
    phases.end()
    tracing.stop()
    assert len(traces.spans) == 50


def test_a_collector_that_is_away_delays_the_end_by_seconds_only() -> None:
    tracing.start(Settings(_env_file=None, otlp_endpoint="http://127.0.0.1:1"), "test")
    with tracing.span("lost"):
        pass
    tracing.stop()


def test_without_the_extra_everything_works() -> None:
    run = subprocess.run([sys.executable, "-c", WITHOUT], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "install the extra otel" in run.stderr
