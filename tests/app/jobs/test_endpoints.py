"""Jobs over HTTP, on a real socket."""

import httpx
import pytest

from app.jobs.outcomes import Finished, NewArtifact, UserError
from tests.support.stage import Stage

pytestmark = pytest.mark.anyio

DYNAMIC = {"steps": [{"method": "quantize.dynamic"}]}


async def body(stage: Stage, **fields: object) -> dict[str, object]:
    """A request that is accepted."""
    return {"model_id": await stage.model(), "recipe": DYNAMIC, "targets": ["onnxruntime"], **fields}


async def test_a_job_from_post_to_artifact(stage: Stage, api: httpx.AsyncClient) -> None:
    request = await body(stage, name="nightly", tags={"team": "vision"}, limits={"max_size_ratio": 0.3}, priority=3)
    posted = await api.post("/v1/jobs", json=request)
    job = posted.json()
    assert posted.status_code == 202, job
    assert posted.headers["Location"].endswith(f"/v1/jobs/{job['id']}")
    assert posted.headers["Retry-After"].isdigit()
    assert (job["state"], job["attempt"], job["progress"], job["queue_position"]) == ("queued", 0, 0, 1)
    assert job["recipe"]["steps"][0]["weight_bits"] == 8
    assert job["limits"]["max_size_ratio"] == 0.3
    assert job["timeouts"] == {"pending_s": 86400, "run_s": 14400}
    expected = {**request, "recipe": job["recipe"], "limits": job["limits"]}
    assert {name: job[name] for name in request} == expected

    lease = await stage.claim()
    await stage.run(stage.leases.progress, lease, "measuring", 0.5, 3.0)
    job = (await api.get(f"/v1/jobs/{job['id']}")).json()
    assert (job["state"], job["phase"], job["progress"], job["eta_s"]) == ("running", "measuring", 0.5, 3.0)
    assert (job["queue_position"], job["metrics"], job["artifacts"]) == (None, None, [])

    made = NewArtifact("onnxruntime", "onnx", "m.onnx", 3, "1" * 64, {})
    metrics = {"baseline": {"onnxruntime": {"size_bytes": 9}}, "layers": [{"name": "fc", "bits": 8}]}
    await stage.run(stage.leases.finish, lease, Finished([made], metrics, {"passed": True, "checks": []}))
    job = (await api.get(f"/v1/jobs/{job['id']}")).json()
    assert (job["state"], job["progress"], job["error"]) == ("succeeded", 1.0, None)
    assert job["metrics"] == metrics
    assert job["gate"]["passed"] is True
    artifact = job["artifacts"][0]
    assert artifact["download_url"].endswith(f"/v1/artifacts/{artifact['id']}/content")
    assert (artifact["job_id"], artifact["target"], artifact["size_bytes"]) == (job["id"], "onnxruntime", 3)
    listed = (await api.get("/v1/jobs")).json()["items"]
    assert listed[0]["metrics"] == {"baseline": metrics["baseline"]}


async def test_presets_and_compute_are_resolved(stage: Stage, api: httpx.AsyncClient) -> None:
    request = await body(stage, recipe="preset:fast", compute="cpu", calibration_dataset_id=await stage.dataset())
    job = (await api.post("/v1/jobs", json=request)).json()
    step = job["recipe"]["steps"][0]
    assert (step["method"], step["calibration"], job["compute"]) == ("quantize.static", "minmax", "cpu")
    assert (await stage.get(job["id"])).queue == "cpu"


async def test_a_job_may_wait_for_its_check(stage: Stage, api: httpx.AsyncClient) -> None:
    request = await body(stage, model_id=await stage.model("checking"))
    assert (await api.post("/v1/jobs", json=request)).status_code == 202
    assert await stage.claim() is None


async def test_an_idempotency_key_makes_one_job(stage: Stage, api: httpx.AsyncClient) -> None:
    request, headers = await body(stage), {"Idempotency-Key": "once"}
    first = await api.post("/v1/jobs", json=request, headers=headers)
    second = await api.post("/v1/jobs", json=request, headers=headers)
    assert (second.status_code, second.json()["id"]) == (202, first.json()["id"])
    assert second.headers["Location"] == first.headers["Location"]
    other = await api.post("/v1/jobs", json={**request, "seed": 1}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert len((await api.get("/v1/jobs")).json()["items"]) == 1


async def test_cancel_retry_delete(stage: Stage, api: httpx.AsyncClient) -> None:
    job_id = (await api.post("/v1/jobs", json=await body(stage))).json()["id"]
    url = f"/v1/jobs/{job_id}"
    refused = await api.post(f"{url}:retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "job_not_finished")
    lease = await stage.claim()
    canceled = await api.post(f"{url}:cancel")
    assert (canceled.status_code, canceled.json()["state"]) == (202, "canceling")
    refused = await api.delete(url)
    assert (refused.status_code, refused.json()["code"]) == (409, "job_running")
    await stage.run(stage.leases.finish, lease, UserError("any", "thing"))
    refused = await api.post(f"{url}:cancel")
    assert (refused.status_code, refused.json()["code"]) == (409, "job_already_finished")
    retried = await api.post(f"{url}:retry")
    assert (retried.status_code, retried.json()["state"], retried.json()["max_attempts"]) == (202, "queued", 4)
    assert (await api.delete(url)).status_code == 204
    for answer in (await api.get(url), await api.post(f"{url}:cancel"), await api.delete(url)):
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


async def test_a_job_whose_input_is_gone_is_not_retried(stage: Stage, api: httpx.AsyncClient) -> None:
    request = await body(stage)
    job_id = (await api.post("/v1/jobs", json=request)).json()["id"]
    await api.post(f"/v1/jobs/{job_id}:cancel")
    assert (await api.delete(f"/v1/models/{request['model_id']}")).status_code == 204
    refused = await api.post(f"/v1/jobs/{job_id}:retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "inputs_gone")
    assert (await api.get(f"/v1/jobs/{job_id}")).json()["state"] == "canceled"


async def test_lists_are_filtered_and_paged(stage: Stage, api: httpx.AsyncClient) -> None:
    request = await body(stage)
    made = []
    for number in range(5):
        tags = {"team": "vision" if number % 2 else "speech", "n": str(number)}
        fields = {**request, "name": f"job{number}", "tags": tags}
        made.append((await api.post("/v1/jobs", json=fields)).json()["id"])
    await api.post(f"/v1/jobs/{made[0]}:cancel")

    async def listed(query: str) -> list[str]:
        answer = await api.get(f"/v1/jobs?{query}")
        assert answer.status_code == 200, answer.text
        return [item["id"] for item in answer.json()["items"]]

    assert await listed("") == made[::-1]
    assert await listed("state=canceled") == [made[0]]
    assert await listed("state=canceled&state=queued") == made[::-1]
    assert await listed("name=job3") == [made[3]]
    assert await listed("tag=team:vision") == [made[3], made[1]]
    assert await listed("tag=team&tag=n:4") == [made[4]]
    assert await listed("tag=color") == []
    first = (await api.get("/v1/jobs?limit=3")).json()
    second = (await api.get(f"/v1/jobs?limit=3&cursor={first['next_cursor']}")).json()
    assert [item["id"] for item in first["items"] + second["items"]] == made[::-1]
    assert second["next_cursor"] is None
    assert [item["queue_position"] for item in first["items"] + second["items"]] == [4, 3, 2, 1, None]


@pytest.mark.parametrize("query", ["state=sleeping", "name=%00", "tag=a%00", "limit=0", "cursor=x"])
async def test_bad_queries(api: httpx.AsyncClient, query: str) -> None:
    assert (await api.get(f"/v1/jobs?{query}")).status_code == 422


async def test_workspaces_and_roles_are_kept_apart(stage: Stage, api: httpx.AsyncClient) -> None:
    request = await body(stage)
    job_id = (await api.post("/v1/jobs", json=request)).json()["id"]
    stranger = await stage.key(workspace_id=await stage.workspace("other"))
    reader = await stage.key("reader")
    for path in ("", "/events", "/logs"):
        assert (await api.get(f"/v1/jobs/{job_id}{path}", headers=stranger)).status_code == 404
    assert (await api.post(f"/v1/jobs/{job_id}:cancel", headers=stranger)).status_code == 404
    assert (await api.get("/v1/jobs", headers=stranger)).json()["items"] == []
    refused = await api.post("/v1/jobs", json=request, headers=stranger)
    assert (refused.status_code, refused.json()["code"]) == (422, "model_not_found")
    assert (await api.get(f"/v1/jobs/{job_id}", headers=reader)).status_code == 200
    for answer in (
        await api.post("/v1/jobs", json=request, headers=reader),
        await api.post(f"/v1/jobs/{job_id}:cancel", headers=reader),
        await api.delete(f"/v1/jobs/{job_id}", headers=reader),
    ):
        assert answer.status_code == 403
    assert (await api.get("/v1/jobs", headers={"Authorization": ""})).status_code == 401


async def test_checks_are_not_jobs(stage: Stage, api: httpx.AsyncClient) -> None:
    check = await stage.job(kind="check_model", queue="checks", targets=[], model_id=await stage.model("checking"))
    for path in ("", "/events", "/logs"):
        assert (await api.get(f"/v1/jobs/{check}{path}")).status_code == 404
    assert (await api.post(f"/v1/jobs/{check}:cancel")).status_code == 404
    assert (await api.delete(f"/v1/jobs/{check}")).status_code == 404
    assert (await api.get("/v1/jobs")).json()["items"] == []


@pytest.mark.parametrize("job_id", ["job_none", "%00", "%FF", "a%2Fb"])
async def test_ids_that_are_none(api: httpx.AsyncClient, job_id: str) -> None:
    for answer in (await api.get(f"/v1/jobs/{job_id}"), await api.delete(f"/v1/jobs/{job_id}")):
        assert answer.status_code == 404
        assert answer.headers["Content-Type"] == "application/problem+json"
