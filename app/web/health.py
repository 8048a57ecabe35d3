"""``/healthz``: this process answers. ``/readyz``: so does everything that it needs."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Literal

from fastapi import APIRouter, Request
from kombu.exceptions import OperationalError
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app.clock import NOW, seconds
from app.errors import Unavailable
from app.migrate import newest_revision, revision_of
from app.tables import Worker
from app.web.problems import responses
from app.web.services import Services

router = APIRouter(tags=["health"])
#: Time that each part has to answer, in seconds.
PATIENCE_S = 4.0

log = logging.getLogger(__name__)


class Health(BaseModel):
    """All is well."""

    status: Literal["ok"] = "ok"


class Readiness:
    """Whether this process can do what it is for. One for each application, in ``app.state.readiness``."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._asked: dict[str, asyncio.Task[None]] = {}
        self._stopping = False

    def stop(self) -> None:
        """From now on the process is not ready: it ends."""
        self._stopping = True

    async def faults(self) -> list[str]:
        """What is missing, each with the part's name before it; empty when all is well."""
        if self._stopping:
            return ["process: it is stopping"]
        found = await asyncio.gather(*(self._try(name, probe) for name, probe in _PROBES.items()))
        return [fault for fault in found if fault is not None]

    async def _try(self, name: str, probe: Callable[[Services], Awaitable[None]]) -> str | None:
        """What is wrong with one part. A probe that hangs is waited for again, rather than started once more."""
        asked = self._asked.get(name)
        if asked is None or asked.done():
            asked = self._asked[name] = asyncio.ensure_future(_run(probe, self._services))
            asked.add_done_callback(_seen)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.shield(asked)
        except Unavailable as error:
            return f"{name}: {error.detail}"
        except TimeoutError:
            return f"{name}: no answer within {PATIENCE_S:g} s"
        except (SQLAlchemyError, OSError, OperationalError) as error:
            log.warning("not ready: %s: %s", name, error)
            return f"{name}: does not answer"
        return None


@router.get("/healthz", summary="Is this process alive", responses=responses(500, always=()))
async def healthz() -> Health:
    """Asks nothing of database or queue: a restart of this process would not mend those."""
    return Health()


@router.get("/readyz", summary="Is the service ready for work", responses=responses(500, 503, always=()))
async def readyz(request: Request) -> Health:
    """200 once the database has this version's tables, queue and store answer, and workers are live; else 503."""
    readiness: Readiness = request.app.state.readiness
    missing = await readiness.faults()
    if missing:
        raise Unavailable("; ".join(missing), code="not_ready")
    return Health()


async def _run(probe: Callable[[Services], Awaitable[None]], services: Services) -> None:
    await probe(services)


def _seen(task: asyncio.Task[None]) -> None:
    """Takes the exception of a probe that nobody waits for any more."""
    if not task.cancelled():
        task.exception()


async def _database(services: Services) -> None:
    """Raises `Unavailable` unless the tables are those of this version."""
    async with services.database.transaction() as session:
        found = await revision_of(session)
    if found != newest_revision():
        raise Unavailable("its tables are of another version; run modelpress-server migrate, or update this process")


async def _workers(services: Services) -> None:
    """Raises `Unavailable` unless the database knows live workers for jobs and for checks."""
    alive = NOW - seconds(services.settings.worker_ttl_s)
    async with services.database.transaction() as session:
        queues = set(await session.scalars(select(Worker.queue).where(Worker.seen_at > alive).distinct()))
    if not queues & {"cpu", "gpu"}:
        raise Unavailable("none is live for jobs")
    if "checks" not in queues:
        raise Unavailable("none is live for checks of uploads")


async def _queue(services: Services) -> None:
    await services.queue.ping()


async def _store(services: Services) -> None:
    await services.store.check()


_PROBES = {"database": _database, "workers": _workers, "queue": _queue, "store": _store}
