"""A line: a connection that is kept for one question."""

import asyncio
import socket

import pytest
from sqlalchemy import bindparam, func, select, text
from sqlalchemy.exc import OperationalError

from app import db
from app.config import Settings
from app.db import Database, Line
from tests.support.stage import Stage

pytestmark = pytest.mark.anyio

#: Answers with its connection's process, after a while.
QUESTION = select(func.pg_backend_pid(), func.pg_sleep(bindparam("seconds")))


async def _asked(line: Line, seconds: float = 0) -> int:
    ((pid, _),) = await line.ask(seconds=seconds)
    return int(pid)


async def _there(stage: Stage, pid: int) -> bool:
    async with stage.database.transaction() as session:
        found = await session.scalar(text("select count(*) from pg_stat_activity where pid = :pid"), {"pid": pid})
    return bool(found)


async def _gone(stage: Stage, pid: int) -> None:
    while await _there(stage, pid):  # noqa: ASYNC110 (of another process)
        await asyncio.sleep(0.01)


async def test_the_connection_is_kept(stage: Stage) -> None:
    line = stage.database.line(QUESTION)
    assert await _asked(line) == await _asked(line)


async def test_a_connection_that_was_lost_is_replaced(stage: Stage) -> None:
    line = stage.database.line(QUESTION)
    first = await _asked(line)
    async with stage.database.transaction() as session:
        await session.execute(text("select pg_terminate_backend(:pid, 5000)"), {"pid": first})
    assert await _asked(line) != first


async def test_a_question_that_was_broken_off_is_not_answered_to_the_next(stage: Stage) -> None:
    line = stage.database.line(QUESTION)
    first = await _asked(line)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(_asked(line, 60), 0.2)
    assert await _asked(line) != first


async def test_a_closed_database_holds_no_line(stage: Stage, settings: Settings) -> None:
    database = Database(settings)
    line = database.line(QUESTION)
    pid = await _asked(line)
    assert await _there(stage, pid)
    await database.close()
    await asyncio.wait_for(_gone(stage, pid), 10)


async def test_a_database_that_is_away() -> None:
    away = Settings(_env_file=None, database_url="postgresql+psycopg://nobody@127.0.0.1:1/none")
    with pytest.raises(OperationalError, match="pg_backend_pid"):
        await _asked(Database(away).line(QUESTION))


async def test_a_database_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "PATIENCE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql+psycopg://nobody@127.0.0.1:{silent.getsockname()[1]}/none"
        line = Database(Settings(_env_file=None, database_url=url)).line(QUESTION)
        with pytest.raises(OperationalError, match="pg_backend_pid"):
            await asyncio.wait_for(_asked(line), 30)


async def test_a_connection_that_falls_silent_is_given_up(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    line = stage.database.line(QUESTION)
    first = await _asked(line)
    monkeypatch.setattr(db, "PATIENCE_S", 0.2)
    with pytest.raises(OperationalError):
        await _asked(line, 60)
    monkeypatch.undo()
    assert await _asked(line) != first
