"""The loop that puts right what crashes, lost messages and time leave behind."""

import asyncio
import os
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import func, select, update

from app import db
from app.accounts.holdings import forget_lost_slots
from app.accounts.idempotency import forget_expired
from app.jobs import maintenance, workers
from app.jobs.maintenance import Maintenance, collect_blobs
from app.storage import ObjectMissing, ObjectStore, open_store
from app.tables import (
    Blob,
    Dataset,
    IdempotencyKey,
    Model,
    ResumableUpload,
    UploadSlot,
    Webhook,
    WebhookDelivery,
    Worker,
)
from app.uploads.keep import keep_file
from app.uploads.repository import forget_expired_uploads
from app.webhooks.repository import forget_finished
from tests.support.stage import CPU, DIGEST, Stage

pytestmark = pytest.mark.anyio

LONG_AGO = func.now() - timedelta(days=1)


@pytest.fixture
def store(stage: Stage) -> ObjectStore:
    return open_store(stage.settings)


@pytest.fixture
def loop(stage: Stage, store: ObjectStore) -> Maintenance:
    settings = stage.settings.model_copy(update={"lease_s": 0.0})
    return Maintenance(settings, stage.database, store, stage.leases)


@pytest.mark.parametrize("noun", ["model", "dataset"])
@pytest.mark.parametrize("fate", ["rejected", "gone"])
async def test_jobs_whose_inputs_are_lost_fail(stage: Stage, noun: str, fate: str) -> None:
    model_id, dataset_id = await stage.model("checking"), await stage.dataset("checking")
    job_id = await stage.job(model_id=model_id, training_dataset_id=dataset_id)
    await stage.run(maintenance.rejected_inputs)
    assert (await stage.get(job_id)).state == "queued"
    table: Any = {"model": Model, "dataset": Dataset}[noun]
    async with stage.database.transaction() as session:
        row = (await session.scalars(select(table))).one()
        if fate == "gone":
            await session.delete(row)
        else:
            row.state, row.error = "rejected", {"code": "file_damaged", "detail": "it was cut off"}
    for _ in range(2):
        await stage.run(maintenance.rejected_inputs)
        job = await stage.get(job_id)
        assert (job.state, job.error["code"]) == ("failed", f"{noun}_rejected")
        assert {"rejected": "cut off", "gone": "deleted"}[fate] in job.error["detail"]
    assert len(await stage.events(job_id)) == 1


async def test_a_check_that_nobody_takes_rejects_its_file(stage: Stage) -> None:
    model_id = await stage.model("checking")
    waiting = await stage.job(model_id=model_id)
    await stage.job(
        kind="check_model", queue="checks", targets=[], model_id=model_id, queued_at=LONG_AGO, pending_timeout_s=60
    )
    await stage.run(maintenance.time_outs)
    async with stage.database.transaction() as session:
        assert (await session.get(Model, model_id)).error["code"] == "pending_timeout"
    error = (await stage.get(waiting)).error
    assert error["code"] == "model_rejected"
    assert model_id in error["detail"]
    assert "pending_timeout" in error["detail"]  # why it was rejected, without a second question


async def test_unreferenced_bytes_are_collected(stage: Stage, store: ObjectStore, tmp_path: Path) -> None:
    workspace = stage.workspaces[0]
    digests = {}
    for name in ("kept", "fresh", "old"):
        (tmp_path / name).write_text(name)
        stored = await keep_file(stage.database, store, workspace, tmp_path / name)
        digests[name] = stored.sha256
    await stage.model(sha256=digests["kept"])
    async with stage.database.transaction() as session:
        old = Blob.sha256.in_([digests["kept"], digests["old"]])
        await session.execute(update(Blob).where(old).values(touched_at=LONG_AGO))
    assert await collect_blobs(stage.database, store) == 1
    assert await collect_blobs(stage.database, store) == 0
    with pytest.raises(ObjectMissing):
        await store.size(workspace, digests["old"])
    assert await store.size(workspace, digests["kept"]) == 4
    assert await store.size(workspace, digests["fresh"]) == 5
    async with stage.database.transaction() as session:
        left = set(await session.scalars(select(Blob.sha256)))
    assert left == {DIGEST, digests["kept"], digests["fresh"]}


@pytest.fixture
def left_over(stage: Stage) -> Path:
    """A file that a killed process left in the store."""
    path = Path(urlsplit(stage.settings.store_url).path, ".staging", "left")
    path.parent.mkdir(parents=True)
    path.touch()
    os.utime(path, (0, 0))
    return path


async def test_what_was_left_in_the_store_is_collected(loop: Maintenance, left_over: Path) -> None:
    assert await loop.collect()
    assert not await asyncio.to_thread(left_over.exists)


async def test_a_round_does_every_step(stage: Stage, loop: Maintenance) -> None:
    job_id, _ = await stage.in_state("running", max_attempts=1)
    await stage.offer(CPU)
    async with stage.database.transaction() as session:
        await session.execute(update(Worker).values(seen_at=LONG_AGO))
        for number, expires_at in enumerate((LONG_AGO, func.now() + timedelta(hours=1))):
            key = {"workspace_id": stage.workspaces[0], "key": str(number), "owner": "x"}
            session.add(IdempotencyKey(**key, expires_at=expires_at))
    assert await loop.round()
    assert (await stage.get(job_id)).state == "running"
    assert await loop.round()
    assert (await stage.get(job_id)).error["code"] == "worker_lost"
    async with stage.database.transaction() as session:
        assert (await session.scalars(select(Worker))).all() == []
        assert (await session.scalars(select(IdempotencyKey.key))).all() == ["1"]
        assert await workers.live(session, 1e6) == []


async def test_one_process_at_a_time_does_a_round(stage: Stage, loop: Maintenance) -> None:
    async with stage.database.transaction() as other:
        await other.execute(select(func.pg_advisory_xact_lock(maintenance.LOCK)))
        assert not await loop.round()
    assert await loop.round()


async def test_a_store_that_hangs_keeps_no_job_waiting(stage: Stage, loop: Maintenance) -> None:
    class Hanging:
        """The store, as a part of the network that swallows everything shows it."""

        def __init__(self) -> None:
            self.asked = asyncio.Event()

        async def delete(self, _workspace_id: str, _sha256: str) -> None:
            self.asked.set()
            await asyncio.Event().wait()

    store: Any = Hanging()
    async with stage.database.transaction() as session:
        session.add(Blob(workspace_id=stage.workspaces[0], sha256="1" * 64, size_bytes=1, touched_at=LONG_AGO))
    settings = stage.settings.model_copy(update={"maintenance_s": 0.05, "lease_s": 0.1})
    task = asyncio.create_task(Maintenance(settings, stage.database, store, stage.leases).run())
    try:
        async with asyncio.timeout(20):
            await store.asked.wait()
            job_id, _ = await stage.in_state("running", max_attempts=1)
            await stage.until(job_id, "failed")
        assert not await loop.collect(), "another process would hang as well"
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert await loop.collect()


async def test_no_step_removes_all_rows_at_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "SOME", 2)
    workspace_id = stage.workspaces[0]
    async with stage.database.transaction() as session:
        webhook = Webhook(workspace_id=workspace_id, url="https://example.com", events=[], salt=b"")
        session.add(webhook)
        await session.flush()
        for number in range(3):
            past = {"workspace_id": workspace_id, "expires_at": LONG_AGO}
            session.add(IdempotencyKey(**past, key=str(number), owner="x"))
            session.add(UploadSlot(**past))
            session.add(ResumableUpload(**past, filename="m", meta="", size_bytes=1))
            session.add(WebhookDelivery(webhook_id=webhook.id, event="test", body="{}", finished_at=LONG_AGO))
            offer = {"hostname": "h", "queue": "cpu", "targets": [], "capabilities": {}}
            session.add(Worker(id=str(number), **offer, seen_at=LONG_AGO))
    steps = {
        IdempotencyKey: (forget_expired,),
        UploadSlot: (forget_lost_slots,),
        ResumableUpload: (forget_expired_uploads,),
        WebhookDelivery: (forget_finished, 60.0),
        Worker: (workers.forget_silent, 60.0),
    }
    for table, step in steps.items():
        left = []
        for _ in range(2):
            await stage.run(*step)
            async with stage.database.transaction() as session:
                left.append(await session.scalar(select(func.count()).select_from(table)))
        assert left == [1, 0], table


async def test_a_failing_step_stops_neither_the_others_nor_the_loop(
    stage: Stage, loop: Maintenance, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_session: Any) -> None:
        raise RuntimeError("bug")

    monkeypatch.setattr(maintenance, "time_outs", broken)
    job_id = await stage.job(model_id=await stage.model("rejected", error={"code": "damaged", "detail": "cut off"}))
    task = asyncio.create_task(loop.run())
    try:
        async with asyncio.timeout(20):
            await stage.until(job_id, "failed")
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert "maintenance step broken failed" in caplog.text
