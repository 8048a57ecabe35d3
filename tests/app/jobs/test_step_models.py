"""Models that a step of the recipe names, from the request to the lease: like any other input."""

from typing import Any

import httpx
import pytest

from app.jobs import maintenance
from app.jobs.outcomes import Finished, UserError
from app.recipes import METHODS
from app.recipes.methods.distill import Distill
from tests.support.stage import CHECKS, Stage

pytestmark = pytest.mark.anyio

POINTER = "/recipe/steps/0/student/model_id"
IMAGE = {"name": "image", "dtype": "float32", "shape": ["batch", 3, 8, 8]}
FACTS: dict[str, Any] = {
    "format": "onnx",
    "inputs": [IMAGE],
    "outputs": [{"name": "score", "dtype": "float32", "shape": ["batch", 10]}],
    "parameters": 8,
}
#: Ten scores are wanted.
NARROW = {**FACTS, "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 9]}]}


@pytest.fixture(autouse=True)
def distill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "distill", Distill)


async def body(stage: Stage, student: str, **fields: Any) -> dict[str, Any]:
    """A request that is accepted where the student is."""
    steps = [{"method": "distill", "student": {"model_id": student}}]
    return {
        "model_id": await stage.model(facts=FACTS),
        "training_dataset_id": await stage.dataset(),
        "recipe": {"steps": steps},
        "targets": ["onnxruntime"],
        **fields,
    }


async def refused(api: httpx.AsyncClient, request: dict[str, Any]) -> dict[str, str]:
    """Pointer -> code."""
    answer = await api.post("/v1/jobs", json=request)
    assert answer.status_code == 422, answer.text
    return {fault["pointer"]: fault["code"] for fault in answer.json()["errors"]}


async def test_the_worker_gets_the_file(stage: Stage, api: httpx.AsyncClient) -> None:
    student = await stage.model(facts=FACTS, format="onnx", filename="small.onnx")
    posted = await api.post("/v1/jobs", json=await body(stage, student))
    assert posted.status_code == 202, posted.text
    assert (await stage.get(posted.json()["id"])).step_model_ids == [student]
    lease = await stage.claim()
    assert lease is not None
    assert set(lease.inputs) == {"model", "training", student}
    file = lease.inputs[student]
    assert (file.id, file.filename, file.format, file.sha256) == (student, "small.onnx", "onnx", "0" * 64)


async def test_models_that_are_not_here(stage: Stage, api: httpx.AsyncClient) -> None:
    error = {"code": "unsafe_format", "detail": "a pickle; export it"}
    theirs = await stage.model(workspace_id=await stage.workspace("second"))
    bad = await stage.model("rejected", error=error)
    for student, code in (("mdl_none", "model_not_found"), (theirs, "model_not_found"), (bad, "model_rejected")):
        request = await body(stage, student)
        assert await refused(api, request) == {POINTER: code}
        everything = await refused(api, {**request, "model_id": "mdl_gone"})
        assert everything == {"/model_id": "model_not_found", POINTER: code}


async def test_a_model_that_answers_something_else(stage: Stage, api: httpx.AsyncClient) -> None:
    request = await body(stage, await stage.model(facts=NARROW))
    assert await refused(api, request) == {POINTER: "model_mismatch"}


async def check(stage: Stage, model_id: str, outcome: Finished | UserError) -> None:
    await stage.job(kind="check_model", queue="checks", targets=[], model_id=model_id)
    lease = await stage.claim(CHECKS)
    assert lease is not None
    await stage.run(stage.leases.finish, lease, outcome)


async def test_the_job_waits_for_it(stage: Stage, api: httpx.AsyncClient) -> None:
    student = await stage.model("checking")
    job_id = (await api.post("/v1/jobs", json=await body(stage, student))).json()["id"]
    assert await stage.claim() is None
    await check(stage, student, Finished(facts=FACTS))
    lease = await stage.claim()
    assert lease is not None
    assert (lease.job_id, lease.inputs[student].id) == (job_id, student)


@pytest.mark.parametrize(
    ("outcome", "code"),
    [(Finished(facts=NARROW), "model_mismatch"), (UserError("file_damaged", "cut off"), "model_rejected")],
)
async def test_what_its_check_speaks_against_fails_the_job(
    stage: Stage, api: httpx.AsyncClient, outcome: Finished | UserError, code: str
) -> None:
    student = await stage.model("checking")
    job_id = (await api.post("/v1/jobs", json=await body(stage, student))).json()["id"]
    await check(stage, student, outcome)
    job = await stage.get(job_id)
    assert (job.state, job.error["code"]) == ("failed", code)
    assert student in job.error["detail"]


async def test_it_is_kept_while_the_job_is_not_over(stage: Stage, api: httpx.AsyncClient) -> None:
    student = await stage.model(facts=FACTS)
    job_id = (await api.post("/v1/jobs", json=await body(stage, student))).json()["id"]
    kept = await api.delete(f"/v1/models/{student}")
    assert (kept.status_code, kept.json()["code"]) == (409, "object_in_use")
    assert job_id in kept.json()["detail"]
    await api.post(f"/v1/jobs/{job_id}:cancel")
    assert (await api.delete(f"/v1/models/{student}")).status_code == 204
    gone = await api.post(f"/v1/jobs/{job_id}:retry")
    assert (gone.status_code, gone.json()["code"]) == (409, "inputs_gone")


async def test_maintenance_finds_that_it_is_gone(stage: Stage) -> None:
    there = await stage.job(step_model_ids=[await stage.model(), await stage.model("checking")])
    lost = await stage.job(step_model_ids=[await stage.model(), "mdl_gone"])
    await stage.run(maintenance.rejected_inputs)
    assert (await stage.get(there)).state == "queued"
    job = await stage.get(lost)
    assert (job.state, job.error["code"]) == ("failed", "model_rejected")
    assert "mdl_gone was deleted" in job.error["detail"]
