"""What is told of jobs is stored with their end, or not at all."""

from typing import Any

import pytest

from app.jobs import transitions
from app.jobs.outcomes import Finished, NewArtifact
from app.jobs.states import Event
from tests.support.stage import DIGEST

pytestmark = pytest.mark.anyio


async def test_the_end_of_a_job_is_told(hooks: Any) -> None:
    made = await hooks.make()
    job_id, lease = await hooks.stage.in_state("running", name="nightly", tags={"team": "ü"})
    artifact = NewArtifact("onnxruntime", "onnx", "m.onnx", 1, DIGEST, {})
    gate = {"passed": True, "checks": []}
    await hooks.stage.run(hooks.stage.leases.finish, lease, Finished(artifacts=[artifact], gate=gate))
    assert [row["state"] for row in await hooks.log(made)] == ["pending"], "no sender runs: it was as good as killed"
    async with hooks.sender():
        (row,) = await hooks.ended(made)
    (seen,) = hooks.receiver.seen
    message = seen.verified(made["secret"])
    assert message == row["payload"]
    assert message["type"] == "job.succeeded"
    assert message["timestamp"].endswith("Z")
    data = message["data"]
    assert (data["id"], data["state"], data["name"], data["error"]) == (job_id, "succeeded", "nightly", None)
    assert (data["tags"], data["gate"], data["attempt"]) == ({"team": "ü"}, gate, 1)
    (told,) = data["artifacts"]
    assert told == {"id": told["id"], "target": "onnxruntime", "size_bytes": 1, "sha256": DIGEST}
    assert (row["id"], row["event"], row["state"]) == (seen.headers["webhook-id"], "job.succeeded", "succeeded")
    assert (row["attempts"], row["response_status"], row["error"], row["next_attempt_at"]) == (1, 204, None, None)
    assert row["duration_ms"] >= 0


async def test_each_is_told_of_what_it_wants(hooks: Any) -> None:
    both = await hooks.make(events=["job.failed", "job.canceled"])
    neither = await hooks.make(events=["job.succeeded"])
    other = await hooks.stage.workspace("other")
    await hooks.cancel()
    await hooks.cancel(workspace_id=other)
    await hooks.cancel(kind="check_model", queue="checks", model_id=await hooks.stage.model("checking"))
    assert [row["event"] for row in await hooks.log(both)] == ["job.canceled"]
    assert await hooks.log(neither) == []


async def test_deleting_a_queued_job_tells_that_it_was_canceled(hooks: Any) -> None:
    made = await hooks.make()
    job_id = await hooks.stage.job()
    headers = await hooks.stage.key("member")
    assert (await hooks.client.delete(f"/v1/jobs/{job_id}", headers=headers)).status_code == 204
    (row,) = await hooks.log(made)
    assert (row["event"], row["payload"]["data"]["id"]) == ("job.canceled", job_id)
    ended = await hooks.cancel()
    await hooks.client.delete(f"/v1/jobs/{ended}", headers=headers)
    assert len(await hooks.log(made)) == 2, "a job that was over is not told of again"


async def test_nothing_is_told_of_what_is_rolled_back(hooks: Any) -> None:
    made = await hooks.make()
    job_id = await hooks.stage.job()
    with pytest.raises(RuntimeError):
        async with hooks.stage.database.transaction() as session:
            job = await transitions.lock(session, job_id)
            await transitions.move(session, job, Event.CANCEL)
            raise RuntimeError("the process fails before the commit")
    assert await hooks.log(made) == []
    assert (await hooks.stage.get(job_id)).state == "queued"
