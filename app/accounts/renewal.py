"""A lease in the database that a request renews for as long as it runs."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import Executable
from sqlalchemy.exc import SQLAlchemyError

from app.beside import beside
from app.db import Database

log = logging.getLogger(__name__)


@asynccontextmanager
async def renewed(database: Database, renewal: Executable, release: Executable, every_s: float) -> AsyncIterator[None]:
    """Executes `renewal` every so many seconds while the block runs, and `release` when it ends."""
    try:
        async with beside(_renew(database, renewal, every_s)):
            yield
    finally:
        await asyncio.shield(_execute(database, release))


async def _renew(database: Database, renewal: Executable, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        try:
            await _execute(database, renewal)
        except (SQLAlchemyError, OSError) as error:
            # There are more tries within the lease.
            log.warning("the lease of a request was not renewed: %s", error)


async def _execute(database: Database, statement: Executable) -> None:
    async with database.transaction() as session:
        await session.execute(statement)
