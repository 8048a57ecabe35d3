"""A worker's presence in the database, and the word that it shuts down, from its main process to its slots."""

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.exc import SQLAlchemyError

from app.db import Database
from app.jobs.leases import Leases
from app.queue import Queue
from worker.runner.slot import Slot

log = logging.getLogger(__name__)


class Shutdown:
    """A pipe that is open as long as the main process goes on; its end tells every slot. Made before the pool forks.

    (A main process that is killed takes its slots along: the pool asks the kernel for that.)
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        self._main = os.getpid()

    def announce(self) -> None:
        """Tells all slots. In the main process."""
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1

    def enter_slot(self) -> None:
        """Called in each forked slot: only the main process may keep the pipe open."""
        if os.getpid() != self._main:
            self.announce()

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[asyncio.Event]:
        """An event that is set when the worker shuts down."""
        event, loop = asyncio.Event(), asyncio.get_running_loop()

        def ended() -> None:
            event.set()
            loop.remove_reader(self._reader)

        loop.add_reader(self._reader, ended)
        await asyncio.sleep(0)
        try:
            yield event
        finally:
            loop.remove_reader(self._reader)


class Presence:
    """Keeps the worker in the table of live workers, from a thread of the main process."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._beat()), name="presence", daemon=True)

    def start(self) -> None:
        """Registers, and goes on to be seen."""
        self._thread.start()

    def stop(self) -> None:
        """Takes the worker off the table: it claims nothing more."""
        self._stopping.set()
        self._thread.join(timeout=5)

    async def _beat(self) -> None:
        settings = self._slot.settings
        database = Database(settings, pooled=False)
        leases = Leases(settings, Queue(settings))
        while not self._stopping.is_set():
            try:
                async with database.transaction() as session:
                    await leases.heartbeat_worker(session, self._slot.offer)
            except (SQLAlchemyError, OSError) as error:
                log.warning("this worker is not seen while the database is away: %s", error)
            await asyncio.to_thread(self._stopping.wait, settings.heartbeat_s)
        try:
            async with database.transaction() as session:
                await leases.forget_worker(session, self._slot.offer.id)
        except (SQLAlchemyError, OSError) as error:
            log.warning("the worker was not taken off the list: %s", error)
        await database.close()
