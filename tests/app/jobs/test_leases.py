"""What workers may do: claim, keep, report, end."""

import asyncio
from dataclasses import replace

import pytest
import redis
from sqlalchemy import select

from app.jobs.events import MAX_EVENTS, NewEvent
from app.jobs.outcomes import Fault, Finished, LeaseState, NewArtifact, NewCheckpoint, Offer, UserError
from app.tables import Artifact, Checkpoint, Dataset, Metric, Model
from tests.support.stage import CHECKS, CPU, Stage

pytestmark = pytest.mark.anyio

GPU = Offer(id="worker-gpu", hostname="host", queue="gpu", targets=("onnxruntime",))
MODEL_FACTS = {
    "format": "onnx",
    "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 4]}],
    "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 2]}],
    "parameters": 8,
    "layers": [{"name": "fc", "kind": "Linear", "parameters": 8}],
}
DATA_FACTS = {"columns": [{"name": "x", "dtype": "float32", "shape": [4]}], "samples": 100}
ARTIFACT = NewArtifact("onnxruntime", "onnx", "m.onnx", 3, "1" * 64, {"seed": 0})


async def test_no_job_is_claimed_twice(stage: Stage) -> None:
    model_id = await stage.model()
    jobs = {await stage.job(model_id=model_id) for _ in range(20)}

    async def claim_all(offer: Offer) -> list[str]:
        claimed = []
        while (lease := await stage.claim(offer)) is not None:
            claimed.append(lease.job_id)
        return claimed

    lists = await asyncio.gather(*(claim_all(replace(CPU, id=f"worker-{number}")) for number in range(4)))
    claimed = [job_id for part in lists for job_id in part]
    assert sorted(claimed) == sorted(jobs)


async def test_a_job_whose_lease_was_lost_is_claimed_by_one(stage: Stage) -> None:
    job_id, _ = await stage.in_state("running")
    await stage.lose(job_id)
    leases = await asyncio.gather(*(stage.claim(replace(CPU, id=str(number))) for number in range(5)))
    assert [lease.attempt for lease in leases if lease is not None] == [2]


async def test_priority_then_fairness_then_age(stage: Stage) -> None:
    busy, idle = stage.workspaces[0], await stage.workspace("second")
    model, other = await stage.model(), await stage.model(workspace_id=idle)
    running = await stage.job(model_id=model)
    assert (await stage.claim()).job_id == running
    older = await stage.job(busy, model_id=model)
    newer = await stage.job(busy, model_id=model)
    theirs = await stage.job(idle, model_id=other)
    urgent = await stage.job(busy, model_id=model, priority=5)
    order = [(await stage.claim()).job_id for _ in range(4)]
    assert order == [urgent, theirs, older, newer]


@pytest.mark.parametrize(
    ("queue", "targets", "taken_by"),
    [
        ("cpu", ["openvino"], {"cpu"}),
        ("gpu", ["onnxruntime"], {"gpu"}),
        (None, ["onnxruntime"], {"cpu", "gpu"}),
        (None, ["onnxruntime", "openvino"], {"cpu"}),
        (None, ["gguf"], set()),
        ("gpu", ["torch"], set()),
    ],
)
async def test_a_worker_takes_what_it_can_run(
    stage: Stage, queue: str | None, targets: list[str], taken_by: set[str]
) -> None:
    takers = set()
    for offer in (CPU, GPU, CHECKS):
        job_id = await stage.job(queue=queue, targets=targets)
        lease = await stage.claim(offer)
        if lease is not None:
            assert lease.job_id == job_id
            takers.add(offer.queue)
        await stage.set(job_id, state="canceled")
    assert takers == taken_by


@pytest.mark.parametrize("role", ["model", "calibration", "evaluation", "training"])
async def test_a_job_waits_for_its_inputs(stage: Stage, role: str) -> None:
    model_id = await stage.model("checking" if role == "model" else "ready")
    columns = {}
    if role != "model":
        columns[f"{role}_dataset_id"] = await stage.dataset("checking")
    await stage.job(model_id=model_id, **columns)
    assert await stage.claim() is None
    kind, column, input_id = (
        ("check_model", "model_id", model_id)
        if role == "model"
        else ("check_dataset", "calibration_dataset_id", columns[f"{role}_dataset_id"])
    )
    await stage.job(kind=kind, queue="checks", targets=[], **{column: input_id})
    assert await stage.claim(CPU) is None
    check = await stage.claim(CHECKS)
    assert check.inputs[kind.removeprefix("check_")].id == input_id
    facts = MODEL_FACTS if role == "model" else DATA_FACTS
    assert await stage.run(stage.leases.finish, check, Finished(facts=facts)) == "succeeded"
    lease = await stage.claim()
    assert lease.inputs[role].id == input_id
    assert lease.inputs["model"].sha256 == "0" * 64


async def test_what_does_not_fit_fails_once_it_is_known(stage: Stage) -> None:
    model_id = await stage.model(facts=MODEL_FACTS)
    dataset_id = await stage.dataset("checking")
    recipe = {"steps": [{"method": "quantize.static"}]}
    fits = await stage.job(model_id=model_id, calibration_dataset_id=dataset_id, recipe=recipe)
    unlabelled = await stage.job(
        model_id=model_id,
        calibration_dataset_id=dataset_id,
        recipe=recipe,
        request={"limits": {"max_metric_drop": 0.01}},
    )
    await stage.job(kind="check_dataset", queue="checks", targets=[], calibration_dataset_id=dataset_id)
    check = await stage.claim(CHECKS)
    await stage.run(stage.leases.finish, check, Finished(facts=DATA_FACTS))
    assert (await stage.get(fits)).state == "queued"
    job = await stage.get(unlabelled)
    assert (job.state, job.error["code"]) == ("failed", "labels_required")


async def test_a_check_whose_attempts_are_used_up_rejects_the_file(stage: Stage) -> None:
    dataset_id = await stage.dataset("checking")
    await stage.job(kind="check_dataset", queue="checks", targets=[], calibration_dataset_id=dataset_id, max_attempts=1)
    check = await stage.claim(CHECKS)
    await stage.run(stage.leases.finish, check, Fault("out_of_memory", "killed"))
    async with stage.database.transaction() as session:
        dataset = await session.get(Dataset, dataset_id)
    assert (dataset.state, dataset.error) == ("rejected", {"code": "out_of_memory", "detail": "killed"})


async def test_facts_that_are_none_reject_nothing_but_the_attempt(stage: Stage) -> None:
    model_id = await stage.model("checking")
    job_id = await stage.job(kind="check_model", queue="checks", targets=[], model_id=model_id)
    check = await stage.claim(CHECKS)
    assert await stage.run(stage.leases.finish, check, Finished(facts={"format": "onnx", "surprise": 1})) == "queued"
    assert (await stage.events(job_id))[-1].data["error"]["code"] == "invalid_report"
    async with stage.database.transaction() as session:
        assert (await session.get(Model, model_id)).state == "checking"


async def test_events_have_no_gaps_under_parallel_appends(stage: Stage) -> None:
    job_id, lease = await stage.in_state("running")

    async def append(worker: int) -> None:
        for number in range(10):
            new = [NewEvent("log", {"message": f"{worker}.{number}.{part}"}) for part in range(3)]
            assert await stage.run(stage.leases.append_events, lease, new)

    await asyncio.gather(*(append(worker) for worker in range(4)))
    events = await stage.events(job_id)
    assert [event.number for event in events] == list(range(1, 122))
    messages = [event.data["message"] for event in events if event.type == "log"]
    for worker in range(4):
        mine = [message for message in messages if message.startswith(f"{worker}.")]
        assert mine == [f"{worker}.{number}.{part}" for number in range(10) for part in range(3)]


async def test_progress_does_not_flood(stage: Stage) -> None:
    job_id, lease = await stage.in_state("running")
    for step in range(400):
        phase = "reading" if step < 100 else "compressing"
        assert await stage.run(stage.leases.progress, lease, phase, step / 4000, 1.5)
    job = await stage.get(job_id)
    assert (job.phase, job.progress, job.eta_s) == ("compressing", 399 / 4000, 1.5)
    told = [event.data["progress"] for event in await stage.events(job_id, "progress")]
    assert len(told) <= 12
    assert told == sorted(told)
    assert await stage.run(stage.leases.progress, lease, "compressing", 0.01)
    assert (await stage.get(job_id)).progress == 399 / 4000


async def test_a_chatty_job_is_cut_off_but_still_ends(stage: Stage) -> None:
    job_id, lease = await stage.in_state("running")
    await stage.set(job_id, last_event=MAX_EVENTS - 2)
    lines = [NewEvent("log", {"message": str(number)}) for number in range(5)]
    assert await stage.run(stage.leases.append_events, lease, lines)
    assert await stage.run(stage.leases.append_events, lease, lines)
    assert await stage.run(stage.leases.finish, lease, Finished()) == "succeeded"
    last = [(event.type, event.data.get("message")) for event in await stage.events(job_id)][1:]
    assert last == [("log", "0"), ("log", "too many events: later ones are not kept"), ("state", None)]


async def test_an_event_that_is_too_large_is_told_of_but_not_kept(stage: Stage) -> None:
    job_id, lease = await stage.in_state("running")
    large = [NewEvent("metric", {"name": "x", "value": "y" * 10**6}), NewEvent("metric", {"name": "x", "value": 1})]
    assert await stage.run(stage.leases.append_events, lease, large)
    events = await stage.events(job_id)
    assert [event.type for event in events] == ["state", "log", "metric"]
    assert "is not kept" in events[1].data["message"]


async def test_a_finished_job_leaves_artifacts_and_metrics(stage: Stage) -> None:
    job_id, lease = await stage.in_state("running")
    metrics = {
        "baseline": {"onnxruntime": {"size_bytes": 12}},
        "artifacts": {"onnxruntime": {"size_bytes": 3, "fidelity": {"sqnr_db": float("inf")}}},
        "layers": [{"name": "fc\0"}],
    }
    gate = {"passed": True, "checks": []}
    outcome = Finished(artifacts=[ARTIFACT], metrics=metrics, gate=gate)
    assert await stage.run(stage.leases.finish, lease, outcome) == "succeeded"
    async with stage.database.transaction() as session:
        artifact = (await session.scalars(select(Artifact).where(Artifact.job_id == job_id))).one()
        stored = {
            (row.name, row.target): row.value
            for row in await session.scalars(select(Metric).where(Metric.job_id == job_id))
        }
    assert (artifact.sha256, artifact.manifest) == ("1" * 64, {"seed": 0})
    assert stored == {
        ("baseline", "onnxruntime"): {"size_bytes": 12},
        ("artifacts", "onnxruntime"): {"size_bytes": 3, "fidelity": {"sqnr_db": None}},
        ("layers", ""): [{"name": "fc\ufffd"}],
    }
    job = await stage.get(job_id)
    assert (job.progress, job.gate) == (1.0, gate)


async def test_broken_limits_leave_artifacts_too(stage: Stage) -> None:
    job_id, lease = await stage.in_state("running")
    check = {"target": "onnxruntime", "limit": "max_size_ratio", "allowed": 0.2, "measured": 0.2511667, "passed": False}
    outcome = Finished(artifacts=[ARTIFACT], metrics={"steps": []}, gate={"passed": False, "checks": [check]})
    assert await stage.run(stage.leases.finish, lease, outcome) == "failed"
    job = await stage.get(job_id)
    assert job.error["code"] == "limits_not_met"
    assert "max_size_ratio on onnxruntime: allowed 0.2, measured 0.251167" in job.error["detail"]
    async with stage.database.transaction() as session:
        assert (await session.scalars(select(Artifact).where(Artifact.job_id == job_id))).one().target == "onnxruntime"


async def test_a_lost_lease_writes_nothing(stage: Stage) -> None:
    job_id, lost = await stage.in_state("running")
    await stage.lose(job_id)
    await stage.claim()
    before = await stage.events(job_id)
    assert not await stage.run(stage.leases.progress, lost, "reading", 0.5)
    assert not await stage.run(stage.leases.append_events, lost, [NewEvent("log", {"message": "x"})])
    assert not await stage.run(stage.leases.save_checkpoint, lost, NewCheckpoint("step 1", 1, "2" * 64))
    assert await stage.run(stage.leases.finish, lost, Finished(artifacts=[ARTIFACT])) is None
    assert await stage.run(stage.leases.release, lost) is None
    assert len(await stage.events(job_id)) == len(before)
    async with stage.database.transaction() as session:
        assert (await session.scalars(select(Artifact))).all() == []
        assert (await session.scalars(select(Checkpoint))).all() == []


async def test_renewing_tells_what_is_wanted(stage: Stage) -> None:
    job_id, lease = await stage.in_state("running")
    assert await stage.run(stage.leases.renew, lease) == LeaseState.OK
    await stage.set(job_id, state="canceling")
    assert await stage.run(stage.leases.renew, lease) == LeaseState.CANCEL
    assert await stage.run(stage.leases.renew, replace(lease, token="other")) == LeaseState.LOST


async def test_a_new_attempt_continues_from_the_last_checkpoint(stage: Stage) -> None:
    _, lease = await stage.in_state("running")
    assert await stage.run(stage.leases.latest_checkpoint, lease) is None
    for label in ("step 1", "step 2"):
        assert await stage.run(stage.leases.save_checkpoint, lease, NewCheckpoint(label, 1, "2" * 64))
    await stage.run(stage.leases.finish, lease, Fault("worker_lost", "died"))
    await stage.set(lease.job_id, not_before=None)
    second = await stage.claim()
    checkpoint = await stage.run(stage.leases.latest_checkpoint, second)
    assert (checkpoint.number, checkpoint.label, checkpoint.attempt) == (2, "step 2", 1)
    await stage.run(stage.leases.finish, second, Finished())
    assert await stage.run(stage.leases.latest_checkpoint, second) is None


async def test_looks_go_out_after_the_commit(stage: Stage, redis_url: str) -> None:
    await stage.offer(CPU)
    await stage.offer(CHECKS)
    model_id = await stage.model("checking")
    await stage.job(model_id=model_id)
    await stage.job(kind="check_model", queue="checks", targets=[], model_id=model_id)
    check = await stage.claim(CHECKS)
    with redis.Redis.from_url(redis_url) as client:
        async with stage.database.transaction() as session:
            await stage.leases.finish(session, check, Finished(facts=MODEL_FACTS))
            assert client.llen("cpu") == 0
        assert client.llen("cpu") == 1
        assert client.llen("gpu") == 0


async def test_workers_come_and_go(stage: Stage) -> None:
    await stage.offer(CPU)
    await stage.run(stage.leases.heartbeat_worker, CPU)
    await stage.run(stage.leases.forget_worker, CPU.id)
    await stage.run(stage.leases.forget_worker, CPU.id)
    await stage.run(stage.leases.heartbeat_worker, CPU)
    async with stage.database.transaction() as session:
        from app.jobs import workers

        live = await workers.live(session, 30)
    assert [(worker.id, worker.queue) for worker in live] == [(CPU.id, "cpu")]


async def test_a_user_error_is_kept_as_text_that_postgres_can_hold(stage: Stage) -> None:
    job_id, lease = await stage.in_state("running")
    await stage.run(stage.leases.finish, lease, UserError("invalid_model", "nul \0 and lone \ud800"))
    assert (await stage.get(job_id)).error == {"code": "invalid_model", "detail": "nul \ufffd and lone ?"}
