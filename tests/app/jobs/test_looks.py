"""Looks that got lost are repeated, for each queue that has none, and never more than a few."""

import logging
from dataclasses import replace
from datetime import timedelta

import pytest
import redis
from sqlalchemy import func, insert

from app.jobs import looks
from app.queue import QUEUES, Queue
from app.tables import Job
from tests.support.stage import CPU, Stage

pytestmark = pytest.mark.anyio

GPU = replace(CPU, id="worker-gpu", queue="gpu")
LATELY = func.now() - timedelta(seconds=1)
STALE = func.now() - timedelta(seconds=21)


async def _round(stage: Stage, redis_url: str, *, taken: bool = True) -> dict[str, int]:
    """Looks that a round leaves, by queue; with `taken`, idle workers then take them."""
    await stage.run(looks.repeat, stage.queue, stage.settings)
    with redis.Redis.from_url(redis_url) as client:
        left = {name: int(client.llen(name)) for name in QUEUES}
        if taken:
            client.delete(*QUEUES)
    return {name: number for name, number in left.items() if number}


async def _many(stage: Stage, number: int, queue: str) -> None:
    """So many jobs whose looks were sent long ago."""
    template = await stage.get(await stage.job(queue=queue, looked_at=STALE))
    columns = {column.key: getattr(template, column.key) for column in Job.__table__.columns if column.key != "id"}
    async with stage.database.transaction() as session:
        await session.execute(insert(Job), [{**columns, "id": f"job_{i}"} for i in range(number - 1)])


async def test_looks_are_repeated_for_claimable_jobs(stage: Stage, redis_url: str) -> None:
    await stage.offer(CPU)
    job_id = await stage.job()
    await stage.job(not_before=func.now() + timedelta(minutes=4))
    await stage.job(model_id=await stage.model("checking"))
    await stage.job(looked_at=LATELY)
    assert await _round(stage, redis_url) == {"cpu": 1}
    assert await _round(stage, redis_url) == {}
    await stage.set(job_id, looked_at=STALE)
    assert await _round(stage, redis_url) == {"cpu": 1}
    lease = await stage.claim()
    assert lease is not None
    assert await _round(stage, redis_url) == {}
    await stage.lose(lease.job_id)
    assert await _round(stage, redis_url) == {"cpu": 1}
    assert await _round(stage, redis_url) == {}


async def test_a_long_queue_gets_few_looks_and_starves_no_other(stage: Stage, redis_url: str) -> None:
    await _many(stage, 450, "gpu")
    await stage.job(queue="cpu", looked_at=STALE)
    assert await _round(stage, redis_url, taken=False) == {"gpu": looks.MOST, "cpu": 1}
    await stage.job(queue="checks", kind="check_model", targets=[], looked_at=STALE)
    for _ in range(3):
        assert await _round(stage, redis_url, taken=False) == {"gpu": looks.MOST, "cpu": 1, "checks": 1}


async def test_as_many_idle_workers_come_as_there_are_jobs(stage: Stage, redis_url: str) -> None:
    await stage.offer(CPU)
    for _ in range(3):
        await stage.job(looked_at=STALE)
    assert await _round(stage, redis_url) == {"cpu": 3}


async def test_any_queue_is_those_of_live_workers_with_the_targets(stage: Stage, redis_url: str) -> None:
    await stage.job(looked_at=STALE)
    await stage.job(looked_at=STALE, targets=["openvino"])
    assert await _round(stage, redis_url) == {}
    await stage.offer(CPU)
    await stage.offer(replace(GPU, targets=("onnxruntime",)))
    assert await _round(stage, redis_url) == {"cpu": 2, "gpu": 1}


async def test_without_a_broker_nothing_counts_as_told(
    stage: Stage, redis_url: str, free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    await stage.job(queue="cpu")
    away = stage.settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{free_port}/0"})
    await stage.run(looks.repeat, Queue(away), away)
    assert "broker is away" in caplog.text
    assert await _round(stage, redis_url) == {"cpu": 1}
