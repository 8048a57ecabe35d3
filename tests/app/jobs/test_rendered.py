"""Jobs that are polled: made once while nothing changes, never older than the last commit, never another's."""

import asyncio
from typing import Any

import httpx
import pytest

from app.jobs import rendered
from app.jobs.outcomes import Finished, NewArtifact
from app.jobs.rendered import Rendered, Wanted
from app.jobs.schemas import JobView
from tests.support.stage import Stage

pytestmark = pytest.mark.anyio

ADDRESS = "http://testserver/"


class Reader:
    """Reads a job through `Rendered`, and counts how often it is made."""

    def __init__(self, stage: Stage, job_id: str) -> None:
        self.stage, self.job_id, self.made = stage, job_id, 0
        self.rendered = Rendered(stage.database)

    async def read(self, job_id: str = "", address: str = ADDRESS) -> bytes:
        return await self.rendered.json(Wanted(self.stage.workspaces[0], job_id or self.job_id, address), self._make)

    async def _make(self) -> JobView:
        self.made += 1
        job = await self.stage.get(self.job_id)
        return JobView.of(job, metrics=None, artifacts=[], queue_position=None)


async def test_a_job_that_does_not_change_is_made_once(stage: Stage) -> None:
    job_id, _ = await stage.in_state("failed")
    reader = Reader(stage, job_id)
    first = await reader.read()
    assert set(await asyncio.gather(*(reader.read() for _ in range(20)))) == {first}
    assert reader.made == 1
    await stage.set(job_id, eta_s=7.0)
    assert JobView.model_validate_json(await reader.read()).eta_s == 7.0
    assert reader.made == 2


async def test_queued_jobs_are_made_anew(stage: Stage) -> None:
    reader = Reader(stage, await stage.job())
    await reader.read()
    await reader.read()
    assert reader.made == 2


async def test_what_is_kept_is_bounded(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id, _ = await stage.in_state("failed")
    reader = Reader(stage, job_id)
    size = len(await reader.read())
    monkeypatch.setattr(rendered, "MOST_BYTES", int(1.5 * (size + 1024)))
    other, _ = await stage.in_state("canceled")
    await reader.read(other)  # both would be too much: the first is forgotten
    await reader.read()
    assert reader.made == 3
    await reader.read()
    assert reader.made == 3


async def test_long_addresses_count(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id, _ = await stage.in_state("failed")
    reader = Reader(stage, job_id)
    await reader.read()
    monkeypatch.setattr(rendered, "MOST_BYTES", 100_000)
    await reader.read(address="a" * 99_000)
    await reader.read()
    assert reader.made == 3


async def test_every_change_is_seen_at_once(stage: Stage, api: httpx.AsyncClient) -> None:
    job_id = await stage.job()
    path = f"/v1/jobs/{job_id}"

    async def seen(*names: str) -> tuple[Any, ...]:
        answers = [(await api.get(path)).json() for _ in range(2)]
        assert answers[0] == answers[1]
        return tuple(answers[0][name] for name in names)

    assert await seen("state", "queue_position") == ("queued", 1)
    await stage.job(priority=5)
    assert await seen("state", "queue_position") == ("queued", 2)
    await stage.set(job_id, priority=9)
    lease = await stage.claim()
    for progress in (0.25, 0.5):
        await stage.run(stage.leases.progress, lease, "measuring", progress, 3.0)
        assert await seen("state", "progress") == ("running", progress)
    made = NewArtifact("onnxruntime", "onnx", "m.onnx", 3, "1" * 64, {})
    await stage.run(stage.leases.finish, lease, Finished([made], {"layers": []}, {"passed": True, "checks": []}))
    assert await seen("state", "metrics") == ("succeeded", {"layers": []})
    assert len((await seen("artifacts"))[0]) == 1
    assert (await api.delete(path)).status_code == 204
    assert (await api.get(path)).json()["code"] == "job_not_found"


async def test_it_is_shown_to_its_workspace_at_its_address(stage: Stage, api: httpx.AsyncClient) -> None:
    job_id = await stage.job()
    lease = await stage.claim()
    made = NewArtifact("onnxruntime", "onnx", "m.onnx", 3, "1" * 64, {})
    await stage.run(stage.leases.finish, lease, Finished([made], {}, {"passed": True, "checks": []}))
    path = f"/v1/jobs/{job_id}"
    for host in ("one.example", "two.example", "one.example"):
        job = (await api.get(path, headers={"Host": host})).json()
        assert job["artifacts"][0]["download_url"].startswith(f"http://{host}/v1/artifacts/")
    stranger = await stage.key("member", await stage.workspace("strangers"))
    assert (await api.get(path, headers=stranger)).json()["code"] == "job_not_found"
