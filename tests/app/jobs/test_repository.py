"""Lists of jobs beside many: they read what they show."""

from typing import Any

import pytest
from sqlalchemy import Select, event, text

from app.jobs import repository
from app.tables import Job
from app.web.pagination import PageRequest
from tests.support.stage import Stage

pytestmark = pytest.mark.anyio

MANY = 20_000


async def test_lists_use_their_indexes(stage: Stage) -> None:
    workspace = stage.workspaces[0]
    await stage.run(_insert, workspace)
    wanted = {
        "ix_jobs_listing": repository.listing(workspace, (), None, ()),
        "ix_jobs_state": repository.listing(workspace, ("failed",), None, ()),
        "ix_jobs_name": repository.listing(workspace, (), "name-7", ()),
        "ix_jobs_tags": repository.listing(workspace, (), None, ("commit:c7",)),
    }
    for index, statement in wanted.items():
        plan = await stage.run(_plan, statement)
        assert index in plan
        assert "Seq Scan" not in plan


async def _plan(session: Any, statement: Select[Any]) -> str:
    """How a page is read."""
    connection, sent = await session.connection(), []
    engine = connection.engine.sync_engine
    event.listen(engine, "before_cursor_execute", lambda _c, _cursor, *asked: sent.append(asked[:2]), once=True)
    await PageRequest(50, None).rows(session, statement, Job)
    asked, parameters = sent[0]
    return "\n".join(row[0] for row in await connection.exec_driver_sql(f"EXPLAIN {asked}", parameters))


async def _insert(session: Any, workspace: str) -> None:
    await session.execute(
        text(
            "INSERT INTO jobs (id, workspace_id, kind, name, tags, state, created_at) "
            "SELECT 'job_' || n, :workspace, 'compress', 'name-' || n % 1000, "
            "jsonb_build_object('commit', 'c' || n / 10), CASE WHEN n = 9 THEN 'failed' ELSE 'succeeded' END, "
            "now() - make_interval(secs => n) FROM generate_series(1, :many) AS n"
        ),
        {"workspace": workspace, "many": MANY},
    )
    await session.execute(text("ANALYZE jobs"))
