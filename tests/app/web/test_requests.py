"""One line in the log for each request."""

import logging
from typing import Any

import pytest

pytestmark = pytest.mark.anyio


def _lines(caplog: pytest.LogCaptureFixture) -> list[tuple[int, dict[str, Any]]]:
    return [(record.levelno, record.__dict__["fields"]) for record in caplog.records if hasattr(record, "fields")]


async def test_a_request_is_one_line(api: Any, caplog: pytest.LogCaptureFixture) -> None:
    client = await api.client()
    with caplog.at_level(logging.DEBUG, "app.web.requests"):
        await client.get("/v1/jobs/job_%0Ax/logs?token=hidden")
        await client.get("/healthz")
    (level, line), (probe, _) = _lines(caplog)
    assert (level, probe) == (logging.INFO, logging.DEBUG)
    assert line.pop("duration_s") > 0
    assert line.pop("sent_bytes") > 100
    assert line == {
        "method": "GET",
        "route": "/v1/jobs/{job_id}/logs",
        "path": "/v1/jobs/job_%0Ax/logs",
        "status": 404,
        "received_bytes": 0,
        "job_id": "job_\nx",
    }
    assert "GET /v1/jobs/job_%0Ax/logs 404 in" in caplog.text
    assert "hidden" not in caplog.text


async def test_a_fault_is_a_line_too(api: Any, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> None:
        raise RuntimeError("broken")

    api.app.state.readiness.faults = broken
    with caplog.at_level(logging.INFO, "app.web.requests"):
        assert (await api.client_with({}).get("/readyz")).status_code == 500
    assert [(level, line["status"]) for level, line in _lines(caplog)] == [(logging.INFO, 500)]
