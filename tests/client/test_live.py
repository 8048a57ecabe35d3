"""Jobs and artifacts that act, in both clients; what they hold is the view that it was."""

import asyncio
import pickle
from pathlib import Path

import pytest
from modelpress import AsyncClient, AsyncLiveJob, Client, Job, JobRequest, LiveArtifact, LiveJob, NoArtifact

from tests.support.contract import KEY, Service

REQUEST = JobRequest(model_id="mdl_1", recipe="auto", targets=["onnxruntime"])
EVENTS = [("state", {"state": "queued"}), ("progress", {"progress": 0.5}), ("end", {})]


@pytest.fixture(autouse=True)
def ready(service: Service) -> None:
    service.events = [*EVENTS]
    service.content = b"bytes" * 100


def test_a_job_from_its_start_to_its_file(client: Client, service: Service, tmp_path: Path) -> None:
    job = client.jobs.create(REQUEST)
    assert isinstance(job, LiveJob)
    with pytest.raises(NoArtifact, match=r"job_1 is queued, .* call wait\(\)"):
        job.artifact("onnxruntime")
    assert [event.type for event in job.events()] == ["state", "progress", "state"]
    done = job.wait(timeout_s=5)
    assert (job.state, done.state, job.refresh()) == ("queued", "succeeded", done)
    artifact = done.artifact("onnxruntime")
    assert isinstance(artifact, LiveArtifact)
    assert done.artifact() == artifact == client.artifacts.get(artifact.id)
    assert artifact.download(tmp_path).read_bytes() == service.content
    assert artifact.get_manifest() == {"seed": 0}
    assert "compressing" in done.logs()
    with pytest.raises(NoArtifact, match="nothing was made for 'openvino'; it has artifacts for: onnxruntime"):
        done.artifact("openvino")


def test_a_job_can_be_canceled(client: Client, service: Service) -> None:
    service.outcome = ""
    job = client.jobs.create(REQUEST)
    assert job.cancel().state == "canceling"


def test_the_same_awaited(service: Service, tmp_path: Path) -> None:
    async def follow() -> bytes:
        async with AsyncClient(service.url, KEY) as client:
            job = await client.jobs.create(REQUEST)
            assert isinstance(job, AsyncLiveJob)
            assert [event.type async for event in job.events()] == ["state", "progress", "state"]
            done = await job.wait()
            assert (await job.refresh()) == done
            return (await done.artifact("onnxruntime").download(tmp_path)).read_bytes()

    assert asyncio.run(follow()) == service.content


def test_a_copy_is_the_data_alone(client: Client) -> None:
    job = client.jobs.create(REQUEST)
    copy = pickle.loads(pickle.dumps(job))
    assert copy == job
    with pytest.raises(AttributeError, match="came from no client, so it cannot act"):
        copy.refresh()
    assert not hasattr(copy, "anything_else")
    assert isinstance(copy, Job)
    assert repr(job).startswith("LiveJob(id='job_1'")
