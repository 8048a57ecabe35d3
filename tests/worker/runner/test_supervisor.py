"""A worker that is asked to end: what its job has made gets into the store, nothing else is waited for."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.jobs.outcomes import Outcome
from app.storage import Stored
from app.tables import Checkpoint
from tests.support.stage import Stage
from worker.runner import lifeline, supervisor
from worker.runner.messages import ArtifactFile, CheckpointSaved, Result
from worker.runner.supervisor import Supervisor

pytestmark = pytest.mark.anyio

CHECKPOINT = CheckpointSaved(label="epoch 1", file="c.zip")
RESULT = Result(artifacts=(ArtifactFile(target="onnxruntime", format="onnx", file="m.onnx", filename="m.onnx"),))
LONG = 60.0


@dataclass
class Job:
    """What a job reports, and the folder that it is copied out of; slow as large files are."""

    report: Any
    folder: Path
    copying_s: float

    async def reports(self) -> AsyncIterator[Any]:
        if self.report is not None:
            yield self.report
        await asyncio.sleep(LONG)

    def take(self, _name: str) -> Path:
        time.sleep(self.copying_s)
        copy = self.folder / secrets.token_hex(4)
        copy.write_bytes(b"made")
        return copy


class Working(Supervisor):
    """A supervisor of such a job, whose store is slow too."""

    job: Any
    storing_s: float

    async def _work(self) -> Outcome:
        last = await self._listen(self.job, self.job)
        assert isinstance(last, Result)
        return await self._collect(last, self.job, 0)

    async def _keep(self, file: Path) -> Stored:
        await asyncio.sleep(self.storing_s)
        return Stored("0" * 64, 1)


@pytest.mark.parametrize(
    ("report", "copying_s", "storing_s", "state", "checkpoints"),
    [
        (RESULT, 0.3, 0.3, "succeeded", 0),
        (CHECKPOINT, 0.3, 0.3, "queued", 1),
        (CHECKPOINT, 0.0, LONG, "queued", 0),
        (None, 0.0, 0.0, "queued", 0),
    ],
    ids=["a result", "a checkpoint", "a store that hangs", "nothing made"],
)
async def test_a_worker_that_ends(
    report: Any,
    copying_s: float,
    storing_s: float,
    state: str,
    checkpoints: int,
    stage: Stage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "_STORING_S", 3.0)
    job_id, lease = await stage.in_state("running")
    assert lease is not None
    nothing: Any = None
    shutdown = asyncio.Event()
    working = Working(nothing, stage.database, stage.leases, nothing, lease, lifeline.now(), shutdown)
    working.job, working.storing_s = Job(report, tmp_path, copying_s), storing_s
    running = asyncio.create_task(working.run())
    await asyncio.sleep(0.1)  # while its file is being copied
    shutdown.set()
    async with asyncio.timeout(20):
        await running
    job = await stage.get(job_id)
    assert (job.state, job.attempt) == (state, 1 if state == "succeeded" else 0)
    async with stage.database.transaction() as session:
        assert len((await session.scalars(Checkpoint.__table__.select())).all()) == checkpoints
