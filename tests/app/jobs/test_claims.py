"""Claims beside many jobs: nobody starves, and a long queue costs no more than a short one."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event, text

from tests.support.stage import CPU, Stage

pytestmark = pytest.mark.anyio

MANY = 100_000


async def test_one_workspace_with_a_thousand_jobs_starves_nobody(stage: Stage) -> None:
    crowd, other = stage.workspaces[0], await stage.workspace("second")
    model, theirs = await stage.model(), await stage.model(workspace_id=other)
    await stage.run(queue_jobs, crowd, model, 1000)
    mine = {await stage.job(other, model_id=theirs) for _ in range(3)}
    claimed = [await stage.claim() for _ in range(6)]
    assert {lease.workspace_id for lease in claimed[:2]} == {crowd, other}
    assert mine <= {lease.job_id for lease in claimed}


async def test_claims_beside_a_hundred_thousand_queued_jobs_read_a_few(stage: Stage) -> None:
    await stage.run(queue_jobs, stage.workspaces[0], await stage.model(), MANY)
    await stage.run(lambda session: session.execute(text("ANALYZE jobs")))
    sent: list[tuple[str, Any]] = []
    event.listen(
        stage.database.engine.sync_engine,
        "before_cursor_execute",
        lambda connection, cursor, statement, parameters, *_: sent.append((statement, parameters)),
    )
    assert await stage.claim() is not None
    statement, parameters = next(one for one in sent if one[0].startswith("UPDATE jobs"))
    async with stage.database.transaction() as session:
        connection = await session.connection()
        plan = "\n".join(row[0] for row in await connection.exec_driver_sql(f"EXPLAIN {statement}", parameters))
    assert "Index Scan using ix_jobs_waiting" in plan
    assert "Seq Scan on jobs" not in plan


async def test_many_workers_at_once_find_a_job_each(stage: Stage) -> None:
    await stage.run(queue_jobs, stage.workspaces[0], await stage.model(), 40)
    leases = await asyncio.gather(*(stage.claim(replace(CPU, id=f"worker-{number}")) for number in range(20)))
    assert len({lease.job_id for lease in leases if lease is not None}) == 20


async def queue_jobs(session: Any, workspace: str, model: str, count: int) -> None:
    await session.execute(
        text(
            "INSERT INTO jobs (id, workspace_id, kind, request, recipe, targets, model_id) "
            "SELECT 'job_' || n, :workspace, 'compress', '{}', '{\"steps\": []}', '[\"onnxruntime\"]', :model "
            "FROM generate_series(1, :count) AS n"
        ),
        {"workspace": workspace, "model": model, "count": count},
    )
