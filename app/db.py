"""Engine, sessions, and the hooks that run things before and after a commit."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection
from pydantic_core import from_json
from sqlalchemy import ARRAY, ColumnElement, Delete, Select, String, any_, bindparam, delete, inspect, select, tuple_
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute
from sqlalchemy.pool import NullPool

from app.config import Settings

AfterCommit = Callable[[], Awaitable[None]]
BeforeCommit = Callable[[AsyncSession], Awaitable[None]]
#: So long a line waits for an answer, in seconds: all who ask together wait with it. Where the host says nothing at
#: all, psycopg takes ten seconds more to break off.
PATIENCE_S = 10.0
#: Rows that `delete_some` deletes.
SOME = 1000
_BEFORE = "before_commit"
_HOOKS = "after_commit"


class Database:
    """The connection pool of one process (or, with ``pooled=False``, of one short task)."""

    def __init__(self, settings: Settings, *, pooled: bool = True) -> None:
        pool: dict[str, Any] = {"poolclass": NullPool}
        if pooled:
            pool = {"pool_size": settings.database_pool_size, "max_overflow": 10, "pool_pre_ping": True}
        self.engine: AsyncEngine = create_async_engine(settings.database_url, json_deserializer=_parsed, **pool)
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        self._lines: list[Line] = []

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """A session that commits at the end, or rolls back on an error, with its hooks around the commit.

        It begins with its first statement: a block that needs none costs nothing.
        """
        session = self._sessions()
        try:
            yield session
            for last in session.info.pop(_BEFORE, []):
                await last(session)
            if session.in_transaction():
                await session.commit()
        finally:
            if session.in_transaction():
                await session.__aexit__(None, None, None)  # which is not cut short when it is cancelled
        for hook in session.info.pop(_HOOKS, []):
            await hook()

    @property
    def conninfo(self) -> str:
        """Where the database is, for psycopg itself."""
        return self.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)

    def line(self, question: Select[*tuple[Any, ...]]) -> "Line":
        """A connection of its own for this one question, until the database is closed."""
        line = Line(self.conninfo, str(question.compile(dialect=self.engine.dialect)))
        self._lines.append(line)
        return line

    async def close(self) -> None:
        """Closes every connection."""
        for line in self._lines:
            await line.close()
        await self.engine.dispose()


class Line:
    """A connection that is kept for one question, which is asked all the time and by one at a time.

    A session of SQLAlchemy takes six times as long over a question that the database answers at once: it tries the
    connection, begins, asks and commits. Each question is a transaction by itself.
    """

    def __init__(self, conninfo: str, question: str) -> None:
        self._conninfo = conninfo
        self._question = question.encode()
        self._connection: AsyncConnection | None = None

    async def ask(self, **parameters: Any) -> list[tuple[Any, ...]]:
        """The rows.

        Raises:
            OperationalError: of SQLAlchemy, as everywhere: the database cannot be reached, or says nothing in time.
        """
        # Nobody finds a connection whose answer is still under way.
        kept, self._connection = self._connection, None
        try:
            # A host that is gone refuses nothing: the system would wait for its answer for a quarter of an hour.
            async with asyncio.timeout(PATIENCE_S):
                if kept is not None:
                    try:
                        return await self._rows(kept, parameters)
                    except psycopg.OperationalError:  # lost since it was used last: the database was started again
                        pass
                return await self._rows(await AsyncConnection.connect(self._conninfo, autocommit=True), parameters)
        except (psycopg.OperationalError, TimeoutError) as error:
            raise OperationalError(self._question.decode(), parameters, error) from error

    async def _rows(self, connection: AsyncConnection, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        try:
            rows = await (await connection.execute(self._question, parameters)).fetchall()
        except BaseException:
            await connection.close()
            raise
        self._connection = connection
        return rows

    async def close(self) -> None:
        """Closes the connection; the next question opens another."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None


def _parsed(document: bytes) -> Any:
    """pydantic's parser takes a seventh of the time of Python's, and a page of jobs has some 300 documents."""
    try:
        return from_json(document)
    except ValueError:  # nested deeper than it goes
        return json.loads(document)


def before_commit(session: AsyncSession, hook: BeforeCommit) -> None:
    """Runs `hook` as the last thing of this session's transaction; never if it fails before."""
    session.info.setdefault(_BEFORE, []).append(hook)


def after_commit(session: AsyncSession, hook: AfterCommit) -> None:
    """Runs `hook` once this session's transaction has committed; never if it rolls back."""
    session.info.setdefault(_HOOKS, []).append(hook)


def among(
    column: ColumnElement[str] | InstrumentedAttribute[str], values: Sequence[str] | None = None
) -> ColumnElement[bool]:
    """The column is one of `values`, which are one parameter: the statement stays the same however many there are, and
    has room for all of them. A statement that is made once is given them when it is executed, as ``ids``."""
    return column == any_(bindparam("ids", values, ARRAY(String), unique=values is not None, required=values is None))


def delete_some(table: type[DeclarativeBase], condition: ColumnElement[bool]) -> Delete:
    """Deletes up to `SOME` rows: a transaction stays short however many there are. Rows that others hold are left."""
    key = inspect(table).primary_key
    some = select(*key).where(condition).limit(SOME).with_for_update(skip_locked=True)
    return delete(table).where(tuple_(*key).in_(some)).execution_options(synchronize_session=False)
