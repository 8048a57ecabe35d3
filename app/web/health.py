"""``/healthz``: this process answers. ``/readyz``: so does everything that it needs."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Literal

from fastapi import APIRouter
from kombu.exceptions import OperationalError
from pydantic import BaseModel
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from app.errors import Unavailable
from app.tables import Worker
from app.web.problems import responses
from app.web.services import Services, ServicesDep

router = APIRouter(tags=["health"])
_PATIENCE_S = 5.0

log = logging.getLogger(__name__)


class Health(BaseModel):
    """All is well."""

    status: Literal["ok"] = "ok"


@router.get("/healthz", summary="Is this process alive", responses=responses(500, always=()))
async def healthz() -> Health:
    """Asks nothing of database or queue: a restart of this process would not mend those."""
    return Health()


@router.get("/readyz", summary="Is the service ready for work", responses=responses(500, 503, always=()))
async def readyz(services: ServicesDep) -> Health:
    """200 once database, store and queue answer and a worker for jobs and one for checks are live; else 503."""
    missing = [fault for fault in await asyncio.gather(*(_try(probe, services) for probe in _PROBES)) if fault]
    if missing:
        raise Unavailable("; ".join(missing), code="not_ready")
    return Health()


async def _try(probe: Callable[[Services], Awaitable[None]], services: Services) -> str | None:
    name = probe.__name__.lstrip("_")
    try:
        await asyncio.wait_for(probe(services), _PATIENCE_S)
    except Unavailable as error:
        return error.detail
    except TimeoutError:
        return f"{name}: no answer within {_PATIENCE_S:.0f} s"
    except (SQLAlchemyError, OSError, OperationalError) as error:
        log.warning("not ready: %s: %s", name, error)
        return f"{name}: does not answer"
    return None


async def _database(services: Services) -> None:
    """Raises `Unavailable` unless the database knows live workers of both kinds."""
    alive = func.clock_timestamp() - timedelta(seconds=services.settings.worker_ttl_s)
    async with services.database.transaction() as session:
        queues = set(await session.scalars(select(Worker.queue).where(Worker.seen_at > alive).distinct()))
    if not queues & {"cpu", "gpu"}:
        raise Unavailable("workers: none is live for jobs")
    if "checks" not in queues:
        raise Unavailable("workers: none is live for checks of uploads")


async def _queue(services: Services) -> None:
    await services.queue.ping()


async def _store(services: Services) -> None:
    await services.store.check()


_PROBES = (_database, _queue, _store)
