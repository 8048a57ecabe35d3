"""Estimates over the API, admission, which worker gets which job, and what is learned from jobs that ran."""

from dataclasses import replace
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from app.jobs import ratios
from app.jobs.outcomes import Fault, Finished, Lease, Offer
from app.tables import EstimateRatio
from tests.app.recipes.test_estimate import facts
from tests.support.stage import CHECKS, CPU, Stage

pytestmark = pytest.mark.anyio

GIB = 1024**3
DATA = {"columns": [{"name": "x", "dtype": "float32", "shape": [3, 8, 8]}], "samples": 1000}
TRAINED = {"steps": [{"method": "distill", "batch_size": 4096, "epochs": 2}]}


def sized(name: str, memory_bytes: int | None, queue: str = "cpu") -> Offer:
    capabilities = {} if memory_bytes is None else {"job": {"memory_bytes": memory_bytes, "threads": 2}}
    return replace(CPU, id=name, queue=queue, capabilities=capabilities)


async def asked(stage: Stage, **changes: Any) -> dict[str, Any]:
    return {
        "model_id": await stage.model(facts=facts().model_dump(mode="json"), size_bytes=10**6),
        "calibration_dataset_id": await stage.dataset(facts=DATA),
        "recipe": {"steps": [{"method": "quantize.static"}]},
        "targets": ["onnxruntime"],
        **changes,
    }


async def finished(stage: Stage, lease: Lease, peak: int) -> None:
    assert await stage.run(stage.leases.finish, lease, Finished(peak_memory_bytes=peak)) == "succeeded"


async def test_an_estimate_queues_nothing(stage: Stage, api: httpx.AsyncClient) -> None:
    request = await asked(stage, targets=["onnxruntime", "torch"])
    answer = await api.post("/v1/jobs:estimate", json=request, headers=await stage.key("reader"))
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert set(found) == {"size_bytes", "targets", "peak_memory_bytes", "run_s", "fits", "notes"}
    assert found["size_bytes"] == sum(found["targets"].values())
    assert found["fits"]
    assert any("no such job has run here yet" in note for note in found["notes"])
    assert (await api.get("/v1/jobs")).json()["items"] == []
    job = (await api.post("/v1/jobs", json=request)).json()
    assert job["estimate"] == {name: found[name] for name in ("size_bytes", "targets", "peak_memory_bytes", "run_s")}
    assert job["memory_bytes"] == found["peak_memory_bytes"]


async def test_an_estimate_is_refused_for_what_the_job_would_be(stage: Stage, api: httpx.AsyncClient) -> None:
    request = await asked(stage, recipe={"steps": [{"method": "quantize.magic"}]}, targets=["gguf"])
    answers = [await api.post(path, json=request) for path in ("/v1/jobs:estimate", "/v1/jobs")]
    assert [answer.status_code for answer in answers] == [422, 422]
    assert answers[0].json()["errors"] == answers[1].json()["errors"]


@pytest.mark.parametrize("waiting", ["model", "dataset"])
async def test_what_is_being_checked_has_no_estimate_yet(stage: Stage, api: httpx.AsyncClient, waiting: str) -> None:
    made = {"model_id": await stage.model("checking")}
    if waiting == "dataset":
        made = {"calibration_dataset_id": await stage.dataset("checking")}
    answer = await api.post("/v1/jobs:estimate", json=await asked(stage, **made))
    assert (answer.status_code, answer.json()["code"]) == (409, "inputs_checking")
    assert answer.headers["Retry-After"]
    assert (await api.post("/v1/jobs", json=await asked(stage, **made))).json()["estimate"] is None


async def test_a_job_that_clearly_does_not_fit_is_refused(stage: Stage, api: httpx.AsyncClient) -> None:
    await stage.run(stage.leases.forget_worker, CPU.id)
    await stage.offer(sized("small", GIB // 2))
    wide = facts(512).model_dump(mode="json")
    model = await stage.model(facts={**wide, "value_bytes": 2**21, "live_bytes": 2**20}, size_bytes=10**7)
    data = await stage.dataset(facts=DATA)
    request = await asked(stage, model_id=model, training_dataset_id=data, recipe=TRAINED)
    told = (await api.post("/v1/jobs:estimate", json=request)).json()
    assert not told["fits"]
    answer = await api.post("/v1/jobs", json=request)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "does_not_fit")
    assert problem["errors"][0]["pointer"] == "/recipe/steps/0"
    for words in ("0.5 GiB for a job", "batch_size of", "quantize.dynamic alone"):
        assert words in problem["detail"]
    await stage.offer(sized("says-nothing", None))
    assert (await api.post("/v1/jobs", json=request)).status_code == 202


async def test_within_the_uncertainty_nothing_is_refused(stage: Stage, api: httpx.AsyncClient) -> None:
    request = await asked(stage)
    needed = (await api.post("/v1/jobs:estimate", json=request)).json()["peak_memory_bytes"]
    await stage.run(stage.leases.forget_worker, CPU.id)
    await stage.offer(sized("tight", int(needed / 1.5)))
    assert not (await api.post("/v1/jobs:estimate", json=request)).json()["fits"]
    job = (await api.post("/v1/jobs", json=request)).json()
    assert job["memory_bytes"] == int(needed / 1.5)
    assert job["queue_note"] is None
    assert (await stage.claim(sized("tight", int(needed / 1.5)))).job_id == job["id"]


async def test_a_job_goes_to_a_worker_that_holds_it(stage: Stage) -> None:
    large = await stage.job(memory_bytes=4 * GIB, priority=5)
    small = await stage.job(memory_bytes=GIB)
    unknown = await stage.job()
    little, much = sized("little", 2 * GIB), sized("much", 8 * GIB)
    assert {(await stage.claim(little)).job_id for _ in range(2)} == {small, unknown}
    assert await stage.claim(little) is None
    assert (await stage.claim(much)).job_id == large


async def test_a_queued_job_says_why_it_waits(stage: Stage, api: httpx.AsyncClient) -> None:
    job_id = await stage.job(memory_bytes=4 * GIB)
    other = await stage.job(targets=["gguf"])
    await stage.run(stage.leases.forget_worker, CPU.id)
    await stage.offer(sized("little", 2 * GIB))
    notes = {item["id"]: item["queue_note"] for item in (await api.get("/v1/jobs")).json()["items"]}
    assert notes[job_id] == "it needs 4.0 GiB of memory, and the largest live worker has 2.0 GiB for a job"
    assert notes[other] == "no live worker offers gguf"
    await stage.offer(sized("much", 8 * GIB))
    assert (await api.get(f"/v1/jobs/{job_id}")).json()["queue_note"] is None


async def test_out_of_memory_goes_to_a_larger_worker(stage: Stage) -> None:
    little, much = sized("little", 2 * GIB), sized("much", 8 * GIB)
    job_id = await stage.job()
    for offer, asks in ((little, None), (much, 2 * GIB + 1)):
        await stage.offer(offer)
        lease = await stage.claim(little if offer is little else much)
        await stage.run(stage.leases.finish, lease, Fault("out_of_memory", "killed"))
        await stage.set(job_id, not_before=None)
        assert (await stage.get(job_id)).memory_bytes == (asks if offer is little else None)


async def test_a_job_that_waited_for_its_inputs_is_estimated_then(stage: Stage) -> None:
    await stage.offer(sized("little", GIB // 2))
    model = await stage.model("checking")
    job_id = await stage.job(model_id=model)
    await stage.job(kind="check_model", queue="checks", targets=[], model_id=model)
    check = await stage.claim(CHECKS)
    await stage.run(stage.leases.finish, check, Finished(facts=facts().model_dump(mode="json")))
    job = await stage.get(job_id)
    assert (job.state, job.memory_bytes) == ("queued", job.estimate["peak_memory_bytes"])
    huge = facts().model_copy(update={"parameters": 10**10})
    model = await stage.model("checking")
    job_id = await stage.job(model_id=model)
    await stage.job(kind="check_model", queue="checks", targets=[], model_id=model)
    await stage.run(stage.leases.finish, await stage.claim(CHECKS), Finished(facts=huge.model_dump(mode="json")))
    job = await stage.get(job_id)
    assert (job.state, job.error["code"]) == ("failed", "does_not_fit")


async def test_estimates_learn_from_jobs_that_ran(stage: Stage, api: httpx.AsyncClient) -> None:
    request = await asked(stage)
    first = (await api.post("/v1/jobs:estimate", json=request)).json()["peak_memory_bytes"]
    for _ in range(12):
        job_id = (await api.post("/v1/jobs", json=request)).json()["id"]
        lease = await stage.claim()
        assert lease.job_id == job_id
        await finished(stage, lease, 3 * first)
    job = (await api.get(f"/v1/jobs/{job_id}")).json()
    assert job["peak_memory_bytes"] == 3 * first
    found = (await api.post("/v1/jobs:estimate", json=request)).json()
    assert found["peak_memory_bytes"] == pytest.approx(3 * first, rel=0.25)
    assert "memory and time are corrected by 12 jobs that ran here" in found["notes"]
    # A kind of job that has not run yet is corrected by all others.
    dynamic = await asked(stage, recipe={"steps": [{"method": "quantize.dynamic"}]})
    assert (await api.post("/v1/jobs:estimate", json=dynamic)).json()["peak_memory_bytes"] > 2 * first


async def test_what_others_ran_refuses_no_job(stage: Stage, api: httpx.AsyncClient) -> None:
    request = await asked(stage)
    raw = (await api.post("/v1/jobs:estimate", json=request)).json()["peak_memory_bytes"]
    await stage.run(stage.leases.forget_worker, CPU.id)
    await stage.offer(sized("just", raw))
    for _ in range(9):
        await stage.run(
            lambda session: ratios.learn(session, ["quantize.static"], ["onnxruntime"], "cpu", memory=20, run=1)
        )
    assert (await api.post("/v1/jobs:estimate", json=request)).json()["peak_memory_bytes"] > 4 * raw
    job = (await api.post("/v1/jobs", json=request)).json()
    assert job["memory_bytes"] == raw


async def test_one_strange_job_moves_little(stage: Stage) -> None:
    for run in [1.0] * 30 + [1e9]:
        await stage.run(lambda session, run=run: ratios.learn(session, ["a"], ["t"], "cpu", memory=1, run=run))
    found = await stage.run(ratios.find, ["a"], ["t"], "cpu")
    assert 1 < found.run < 1.4
    assert found.memory == 1
    assert await stage.run(ratios.find, ["a"], ["t"], "gpu") == ratios.Ratios()


async def test_later_attempts_and_jobs_without_a_figure_teach_nothing(stage: Stage, api: httpx.AsyncClient) -> None:
    for peak, attempt in ((0, 1), (GIB, 2)):
        job_id = (await api.post("/v1/jobs", json=await asked(stage))).json()["id"]
        lease = await stage.claim()
        await stage.set(job_id, attempt=attempt)
        await finished(stage, lease, peak)
    assert (await stage.run(lambda session: session.scalars(select(EstimateRatio)))).all() == []
