"""Pages of jobs: the list, the form, and one job."""

from typing import Any

import pytest
from sqlalchemy import update

from app.jobs.schemas import JobRequest
from app.tables import Job, Metric

pytestmark = pytest.mark.anyio
RECIPE = {"steps": [{"method": "quantize.dynamic"}]}


async def _job(api: Any, model_id: str, **columns: Any) -> str:
    asked = {"model_id": model_id, "recipe": RECIPE, "targets": ["onnxruntime"], "name": columns.get("name")}
    request = JobRequest.model_validate(asked)
    async with api.services.database.transaction() as session:
        values = {"recipe": RECIPE, "targets": ["onnxruntime"], "model_id": model_id, "state": "queued", **columns}
        row = Job(workspace_id=await api.workspace("ours"), request=request.model_dump(mode="json"), **values)
        session.add(row)
        await session.flush()
        return str(row.id)


async def test_the_list_has_filters_and_says_how_far_jobs_are(api: Any, client: Any) -> None:
    assert "No job yet" in (await client.get("/jobs")).text
    model = await api.upload(client, "models")
    running = {"state": "running", "progress": 0.42, "phase": "exporting", "eta_s": 12.0, "name": "nightly"}
    await _job(api, model["id"], **running)
    await _job(api, model["id"], state="failed", error={"code": "limits_not_met", "detail": "d"}, name="strict")
    page = (await client.get("/jobs")).text
    assert "42 % exporting" in page
    assert "12 s left" in page
    assert "limits_not_met" in page
    only = (await client.get("/jobs?state=failed&name=&tag=")).text
    assert "strict</a>" in only
    assert "nightly</a>" not in only
    assert "No job matches" in (await client.get("/jobs?tag=team:vision")).text
    assert (await client.get("/jobs?state=asleep")).status_code == 422


async def test_a_form_for_members(api: Any, client: Any) -> None:
    model = await api.upload(client, "models", name="digits")
    page = (await client.get(f"/jobs/new?model={model['id']}")).text
    assert f'value="{model["id"]}" selected' in page
    assert (await (await api.client("reader")).get("/jobs/new")).status_code == 403


async def test_a_job_that_failed_says_what_helps(api: Any, client: Any) -> None:
    model = await api.upload(client, "models", name="digits")
    error = {"code": "limits_not_met", "detail": "max_size_ratio on onnxruntime: allowed 0.1, measured 0.3"}
    check = {"target": "onnxruntime", "limit": "max_size_ratio", "allowed": 0.1, "measured": 0.3, "passed": False}
    gate = {"passed": False, "checks": [check]}
    job_id = await _job(api, model["id"], state="failed", error=error, gate=gate)
    async with api.services.database.transaction() as session:
        for name, size in (("baseline", 1000), ("artifacts", 300)):
            session.add(Metric(job_id=job_id, name=name, target="onnxruntime", value={"size_bytes": size}))
    page = (await client.get(f"/jobs/{job_id}")).text
    for text in ("Loosen the limit", "30.0 % of the float file", "✗ broken", f"/jobs/new?from={job_id}"):
        assert text in page
    assert 'data-action="retry"' in page
    assert 'data-action="cancel"' not in page
    assert "data-action" not in (await (await api.client("reader")).get(f"/jobs/{job_id}")).text
    assert (await (await api.client(workspace="theirs")).get(f"/jobs/{job_id}")).status_code == 404


async def test_a_queued_job_and_one_whose_model_is_gone(api: Any, client: Any) -> None:
    model = await api.upload(client, "models", name="digits")
    job_id = await _job(api, model["id"])
    page = (await client.get(f"/jobs/{job_id}")).text
    assert "Waiting" in page
    assert 'data-action="cancel"' in page
    async with api.services.database.transaction() as session:
        await session.execute(update(Job).where(Job.id == job_id).values(state="canceled", model_id="mdl_gone"))
    assert (await client.get(f"/jobs/{job_id}")).status_code == 200
