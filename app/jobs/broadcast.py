"""News of jobs for every event stream of this process, over one LISTEN connection."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import AsyncConnection, Error
from psycopg.sql import SQL, Identifier

from app.db import Database
from app.jobs.events import CHANNEL

#: Pause before connecting again, in seconds.
RECONNECT_S = 1.0

log = logging.getLogger(__name__)


class Broadcast:
    """Wakes the streams that follow a job. News may be spurious, and a lost connection wakes everybody."""

    def __init__(self, database: Database) -> None:
        url = database.engine.url.set(drivername="postgresql")
        self._conninfo = url.render_as_string(hide_password=False)
        self._followers: dict[str, set[asyncio.Event]] = {}
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
    def follow(self, job_id: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever there is news of `job_id`; the follower clears it."""
        news = asyncio.Event()
        self._followers.setdefault(job_id, set()).add(news)
        try:
            yield news
        finally:
            followers = self._followers[job_id]
            followers.discard(news)
            if not followers:
                del self._followers[job_id]

    async def _listen(self) -> None:
        async with await AsyncConnection.connect(self._conninfo, autocommit=True) as connection:
            await connection.execute(SQL("LISTEN {}").format(Identifier(CHANNEL)))
            self.connected.set()
            # What happened while nobody listened is not announced again.
            self._wake(*self._followers)
            async for notice in connection.notifies():
                self._wake(notice.payload)

    def _wake(self, *job_ids: str) -> None:
        for job_id in job_ids:
            for news in self._followers.get(job_id, ()):
                news.set()
