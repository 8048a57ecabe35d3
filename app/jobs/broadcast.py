"""News of jobs for every event stream of this process, over one LISTEN connection; what they read is read once.

A thousand streams of one job that all wake for one event would send a thousand queries for the same rows. Streams that
stand at the same event therefore share a query: whoever asks first starts it. News of the job make everybody start
anew, so nobody is given what was read before the news. Streams of one key share the question whether it still counts.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from psycopg import AsyncConnection, Error
from psycopg.sql import SQL, Identifier

from app.db import Database
from app.jobs.events import CHANNEL

#: Pause before connecting again, in seconds.
RECONNECT_S = 1.0
#: So old a shared answer may be, in seconds: news are not heard while the connection is lost.
SHARED_S = 1.0

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass
class _Asked(Generic[T]):
    started: float
    task: asyncio.Task[T]

    def serves(self) -> bool:
        """Whether another stream may have its answer."""
        failed = self.task.done() and (self.task.cancelled() or self.task.exception() is not None)
        return not failed and time.monotonic() - self.started < SHARED_S


class Shared:
    """Answers that streams share which ask the same at once, or soon one after the other."""

    def __init__(self) -> None:
        self._asked: dict[Hashable, _Asked[Any]] = {}

    async def ask(self, what: Hashable, query: Callable[[], Awaitable[T]]) -> T:
        """The answer for `what`: of a query that another stream began within the last `SHARED_S`, else of `query`."""
        asked = self._asked.get(what)
        if asked is None or not asked.serves():
            self._asked = {other: one for other, one in self._asked.items() if one.serves()}
            asked = self._asked[what] = _Asked(time.monotonic(), asyncio.ensure_future(_awaited(query)))
        # The stream that started it may go away before the others have their answer.
        answer: T = await asyncio.shield(asked.task)
        return answer

    def forget(self) -> None:
        """Whoever asks from now on is given nothing that was asked before."""
        self._asked.clear()


@dataclass
class _Followed:
    """A job that streams of this process follow. `reads`: by the event after which they read, since the last news."""

    followers: set[asyncio.Event] = field(default_factory=set)
    reads: Shared = field(default_factory=Shared)


class Follower:
    """One stream of a job."""

    def __init__(self, followed: _Followed) -> None:
        self.news = asyncio.Event()
        self._followed = followed

    async def read(self, after: int, query: Callable[[], Awaitable[T]]) -> T:
        """The answer of `query`, which reads what came after an event: this stream's, or another's since the news."""
        self.news.clear()
        return await self._followed.reads.ask(after, query)


class Broadcast:
    """Wakes the streams that follow a job. News may be spurious, and a lost connection wakes everybody."""

    def __init__(self, database: Database) -> None:
        self._conninfo = database.conninfo
        self._followed: dict[str, _Followed] = {}
        #: Who the callers of streams are by now, by the Authorization header that each came with.
        self.callers = Shared()
        self.connected = asyncio.Event()

    async def run(self) -> None:
        """Listens until it is cancelled; connects again when the connection is lost."""
        while True:
            try:
                await self._listen()
            except (Error, OSError) as error:
                log.warning("listening for job events was interrupted: %s", error)
            self.connected.clear()
            await asyncio.sleep(RECONNECT_S)

    @contextmanager
    def follow(self, job_id: str) -> Iterator[Follower]:
        """A follower whose `news` is set whenever there is news of `job_id`."""
        followed = self._followed.setdefault(job_id, _Followed())
        follower = Follower(followed)
        followed.followers.add(follower.news)
        try:
            yield follower
        finally:
            followed.followers.discard(follower.news)
            if not followed.followers:
                del self._followed[job_id]

    async def _listen(self) -> None:
        async with await AsyncConnection.connect(self._conninfo, autocommit=True) as connection:
            await connection.execute(SQL("LISTEN {}").format(Identifier(CHANNEL)))
            self.connected.set()
            # What happened while nobody listened is not announced again.
            self._wake(*self._followed)
            async for notice in connection.notifies():
                self._wake(notice.payload)

    def _wake(self, *job_ids: str) -> None:
        for followed in filter(None, map(self._followed.get, job_ids)):
            followed.reads.forget()
            for news in followed.followers:
                news.set()


async def _awaited(query: Callable[[], Awaitable[T]]) -> T:
    return await query()
