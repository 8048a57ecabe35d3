"""``/metrics``: who may read it, and that it is what Prometheus takes."""

from typing import Any

import httpx2
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from sqlalchemy import func

from app.jobs import counts
from app.tables import Job, Worker

pytestmark = pytest.mark.anyio


async def _scrape(api: Any, **headers: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = await api.client_with(headers).get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def _of(figures: dict[Any, float], name: str, **labels: str) -> float:
    return figures[name, tuple(sorted(labels.items()))]


async def test_queues_and_workers(api: Any) -> None:
    workspace_id = await api.workspace("ours")
    async with api.services.database.transaction() as session:
        long_ago = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, 100)
        own = {"workspace_id": workspace_id, "kind": "check_model", "queue": "checks"}
        session.add(Job(**own, queued_at=long_ago))
        session.add(Job(**own, queued_at=long_ago, not_before=func.now() + func.make_interval(0, 0, 0, 0, 0, 4)))
        session.add(Job(**own, state="succeeded"))
        session.add(Worker(id="w", hostname="h", queue="gpu", targets=[], capabilities={}))
        session.add(Worker(id="old", hostname="h", queue="cpu", targets=[], capabilities={}, seen_at=long_ago))
        counts.observe(session, counts.WAIT, 3.0, "checks")
        counts.observe(session, counts.WAIT, 1e9, "checks")
        counts.count(session, counts.FAULTS, "checks", "out_of_memory")
    figures = await _scrape(api)
    assert _of(figures, "modelpress_jobs", queue="checks", state="queued") == 2
    assert _of(figures, "modelpress_jobs", queue="gpu", state="running") == 0
    assert 100 <= _of(figures, "modelpress_queue_oldest_seconds", queue="checks") < 160
    assert _of(figures, "modelpress_queue_oldest_seconds", queue="any") == 0
    assert [_of(figures, "modelpress_workers", queue=name) for name in ("cpu", "gpu", "checks")] == [0, 1, 0]
    assert _of(figures, "modelpress_job_faults_total", queue="checks", code="out_of_memory") == 1
    bucket = "modelpress_job_wait_seconds_bucket"
    assert [_of(figures, bucket, queue="checks", le=le) for le in ("1.0", "5.0", "+Inf")] == [0, 1, 2]
    assert _of(figures, "modelpress_job_wait_seconds_count", queue="checks") == 2
    assert _of(figures, "modelpress_job_wait_seconds_sum", queue="checks") == 1e9 + 3
    assert _of(figures, "modelpress_database_up") == 1
    assert _of(figures, "modelpress_store_free_bytes") > 0
    assert any(name == "process_resident_memory_bytes" and value > 1e6 for (name, _), value in figures.items())


async def test_requests_are_told_by_template(api: Any) -> None:
    client = await api.client()
    before = await _scrape(api)
    model = await api.upload(client)
    for path in (f"/v1/models/{model['id']}", "/v1/models/mdl_x", "/none/1", "/none/2", "/v1/jobs/job_x/logs"):
        await client.get(path)
    await client.get(f"/v1/models/{model['id']}/content")
    await client.request("MADE-UP", "/v1/models")
    after = await _scrape(api)
    grown = {key: value - before.get(key, 0) for key, value in after.items() if value > before.get(key, 0)}

    def requests(method: str, route: str, status: str) -> float:
        return _of(grown, "modelpress_http_requests_total", method=method, route=route, status=status)

    assert requests("POST", "/v1/models", "201") == 1
    assert requests("GET", "/v1/models/{model_id}", "200") == 1
    assert requests("GET", "/v1/models/{model_id}", "404") == 1
    assert requests("GET", "/v1/jobs/{job_id}/logs", "404") == 1
    assert requests("GET", "unknown", "404") == 2
    assert not [key for key in after if model["id"] in str(key) or "MADE-UP" in str(key)]
    received = _of(grown, "modelpress_http_received_bytes_total", route="/v1/models")
    assert received > model["size_bytes"]
    sent = _of(grown, "modelpress_http_sent_bytes_total", route="/v1/models/{model_id}/content")
    assert sent == model["size_bytes"]
    assert _of(grown, "modelpress_http_request_seconds_count", method="POST", route="/v1/models") == 1


async def test_a_scrape_without_the_database(make_api: Any) -> None:
    figures = await _scrape(await make_api(database_url="postgresql+psycopg://nobody@127.0.0.1:1/none"))
    assert _of(figures, "modelpress_database_up") == 0
    assert not [name for name, _ in figures if name.startswith("modelpress_jobs")]


async def test_open_metrics_where_asked_for(api: Any) -> None:
    answer = await api.client_with({"Accept": "application/openmetrics-text"}).get("/metrics")
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert {family.name for family in open_metrics(answer.text)} >= {"modelpress_jobs", "modelpress_http_requests"}


async def _status(api: Any, host: str, **headers: str) -> tuple[int, str]:
    transport = httpx2.ASGITransport(app=api.app, client=(host, 1))
    async with httpx2.AsyncClient(transport=transport, base_url="http://testserver", headers=headers) as client:
        answer = await client.get("/metrics")
        return answer.status_code, answer.json()["code"] if answer.status_code != 200 else ""


async def test_without_a_token_only_this_machine_is_answered(api: Any) -> None:
    for host in ("127.0.0.1", "::1"):
        assert await _status(api, host) == (200, "")
    for host in ("10.0.0.1", "not-an-address"):
        assert await _status(api, host) == (403, "metrics_closed")
    passed_on = {"X-Forwarded-For": "127.0.0.1"}
    assert await _status(api, "127.0.0.1", **passed_on) == (403, "metrics_closed")


async def test_with_a_token(make_api: Any) -> None:
    api = await make_api(metrics_token=SecretStr("right-token"))
    assert await _status(api, "10.0.0.1", Authorization="Bearer right-token") == (200, "")
    for wrong in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "right-token"}):
        assert await _status(api, "127.0.0.1", **wrong) == (401, "metrics_token_invalid")
