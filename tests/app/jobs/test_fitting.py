"""A check that ends and a job that is queued, or another check that ends, at the same moment: nothing gets past."""

import asyncio
from typing import Any

import pytest

from app.errors import Invalid
from app.jobs import control, submission
from app.jobs.outcomes import Finished, Lease
from app.tables import Job
from tests.app.jobs.test_leases import DATA_FACTS, MODEL_FACTS
from tests.support.stage import CHECKS, CPU, Stage

pytestmark = pytest.mark.anyio

NEEDS_LABELS = {"limits": {"max_metric_drop": 0.01}}
RECIPE = {"steps": [{"method": "quantize.static"}]}
#: So long a transaction is given to get to where it waits for another.
PAUSE_S = 0.3


async def _check(stage: Stage, kind: str, **columns: Any) -> Lease:
    job_id = await stage.job(kind=kind, queue="checks", targets=[], **columns)
    lease = await stage.claim(CHECKS)
    assert lease is not None
    assert lease.job_id == job_id
    return lease


async def _dataset(stage: Stage) -> tuple[str, Lease]:
    """A dataset, and the lease of its check."""
    dataset_id = await stage.dataset("checking")
    return dataset_id, await _check(stage, "check_dataset", calibration_dataset_id=dataset_id)


def _request(model_id: str, dataset_id: str) -> dict[str, Any]:
    return {
        "model_id": model_id,
        "calibration_dataset_id": dataset_id,
        "recipe": RECIPE,
        "targets": ["onnxruntime"],
        **NEEDS_LABELS,
    }


def _failed(job: Job) -> None:
    assert (job.state, (job.error or {}).get("code")) == ("failed", "labels_required")


async def test_a_check_that_ends_while_a_job_is_queued_sees_it(stage: Stage) -> None:
    await stage.offer(CPU)
    model_id, (dataset_id, check) = await stage.model(facts=MODEL_FACTS), await _dataset(stage)
    async with stage.database.transaction() as session:
        job = await submission.submit(session, stage.leases, stage.workspaces[0], _request(model_id, dataset_id))
        ending = asyncio.create_task(stage.run(stage.leases.finish, check, Finished(facts=DATA_FACTS)))
        await asyncio.sleep(PAUSE_S)
    assert await ending == "succeeded"
    _failed(await stage.get(job.id))


async def test_a_job_that_is_queued_while_a_check_ends_sees_its_facts(stage: Stage) -> None:
    await stage.offer(CPU)
    model_id, (dataset_id, check) = await stage.model(facts=MODEL_FACTS), await _dataset(stage)
    async with stage.database.transaction() as session:
        await stage.leases.finish(session, check, Finished(facts=DATA_FACTS))
        request = _request(model_id, dataset_id)
        queueing = asyncio.create_task(stage.run(submission.submit, stage.leases, stage.workspaces[0], request))
        await asyncio.sleep(PAUSE_S)
    with pytest.raises(Invalid) as refused:
        await queueing
    assert refused.value.code == "labels_required"


async def test_of_checks_that_end_together_one_sees_all_facts(stage: Stage) -> None:
    model_id, (dataset_id, data) = await stage.model("checking"), await _dataset(stage)
    model = await _check(stage, "check_model", model_id=model_id)
    columns = {"model_id": model_id, "calibration_dataset_id": dataset_id, "recipe": RECIPE}
    good = [await stage.job(**columns) for _ in range(3)]
    bad = await stage.job(**columns, request=NEEDS_LABELS)
    async with stage.database.transaction() as session:
        await stage.leases.finish(session, model, Finished(facts=MODEL_FACTS))
        other = asyncio.create_task(stage.run(stage.leases.finish, data, Finished(facts=DATA_FACTS)))
        await asyncio.sleep(PAUSE_S)
    assert await other == "succeeded"
    _failed(await stage.get(bad))
    for job_id in good:
        job = await stage.get(job_id)
        assert job.state == "queued"
        assert job.memory_bytes
        assert job.estimate


async def test_many_that_end_and_queue_at_once_come_to_an_end(stage: Stage) -> None:
    await stage.offer(CPU)
    model_id = await stage.model("checking")
    datasets = [await _dataset(stage) for _ in range(3)]
    checks = [check for _, check in datasets]
    for dataset_id, _ in datasets * 2:
        await stage.job(model_id=model_id, calibration_dataset_id=dataset_id, recipe=RECIPE)
    ends = [stage.run(stage.leases.finish, check, Finished(facts=DATA_FACTS)) for check in checks]
    model = await _check(stage, "check_model", model_id=model_id)
    ends.append(stage.run(stage.leases.finish, model, Finished(facts=MODEL_FACTS)))
    posts = [
        stage.run(submission.submit, stage.leases, stage.workspaces[0], _request(model_id, dataset_id))
        for dataset_id, _ in datasets
    ]
    async with asyncio.timeout(30):
        *_, one, two, three = await asyncio.gather(*ends, *posts, return_exceptions=True)
    for posted in (one, two, three):
        if isinstance(posted, Job):
            _failed(await stage.get(posted.id))
        else:
            assert isinstance(posted, Invalid)


async def test_a_job_that_was_not_queued_when_its_input_got_known_is_held_against_it_when_retried(stage: Stage) -> None:
    model_id, (dataset_id, check) = await stage.model(facts=MODEL_FACTS), await _dataset(stage)
    columns = {"model_id": model_id, "calibration_dataset_id": dataset_id, "recipe": RECIPE}
    bad, good = await stage.job(**columns, request=NEEDS_LABELS), await stage.job(**columns)
    for job_id in (bad, good):
        await stage.run(control.cancel, stage.workspaces[0], job_id)
    await stage.run(stage.leases.finish, check, Finished(facts=DATA_FACTS))
    for job_id in (bad, good):
        await stage.run(control.retry, stage.leases, stage.workspaces[0], job_id)
    _failed(await stage.get(bad))
    job = await stage.get(good)
    assert (job.state, job.estimate is not None) == ("queued", True)
