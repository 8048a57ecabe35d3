"""``/metrics`` for Prometheus."""

import asyncio
import hmac
import ipaddress
import logging
import os
import re
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from sqlalchemy.exc import SQLAlchemyError

from app.errors import Forbidden, Unauthenticated
from app.instruments import REGISTRY
from app.monitoring import repository
from app.monitoring.collector import ProcessesCollector, ServiceCollector
from app.monitoring.repository import Figures
from app.storage import ObjectStore
from app.web.problems import responses
from app.web.services import Services, ServicesDep, get_services

router = APIRouter(tags=["monitoring"])

#: A scrape must not wait for what is away; Prometheus itself gives up after 10 s.
_PATIENCE_S = 4.0
_CONTENT = {"text/plain": {"schema": {"type": "string"}}}
_TEXT: dict[int | str, dict[str, Any]] = {200: {"description": "Prometheus' text format", "content": _CONTENT}}
#: A proxy that passes requests on says so; whom it speaks for is then not on this machine.
_PASSED_ON = ("forwarded", "x-forwarded-for", "x-real-ip")

log = logging.getLogger(__name__)


def allowed(request: Request) -> None:
    """Lets a scraper through that has the token; without a token in the settings, one on this machine.

    Raises:
        Unauthenticated, Forbidden: for others.
    """
    token = get_services(request).settings.metrics_token.get_secret_value()
    if not token:
        if not _is_local(request):
            raise Forbidden(
                "Figures are told to this machine alone until MODELPRESS_METRICS_TOKEN is set.", code="metrics_closed"
            )
        return
    scheme, _, sent = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(sent.strip().encode(), token.encode()):
        raise Unauthenticated(
            "Send the token of MODELPRESS_METRICS_TOKEN: `Authorization: Bearer ...`.",
            code="metrics_token_invalid",
            headers={"WWW-Authenticate": 'Bearer realm="modelpress-metrics"'},
        )


@router.get(
    "/metrics",
    summary="Read figures for Prometheus",
    dependencies=[Depends(allowed)],
    response_class=Response,
    responses=_TEXT | responses(401, 403, 500, always=()),
)
async def read_metrics(request: Request, services: ServicesDep) -> Response:
    """The service as a whole, and every API process behind this address (docs/observability.md)."""
    figures, free = await asyncio.gather(_figures(services), _free(services.store))
    registry = CollectorRegistry()
    registry.register(ServiceCollector(figures, free))
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    pids = _pids(Path(folder)) if folder else (os.getpid(),)
    registry.register(ProcessesCollector(pids))
    if folder:
        MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    else:
        registry.register(REGISTRY)
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(registry), headers={"Content-Type": content_type, "Cache-Control": "no-store"})


def _is_local(request: Request) -> bool:
    if request.client is None or any(name in request.headers for name in _PASSED_ON):
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


async def _figures(services: Services) -> Figures | None:
    """None while the database does not answer: a scrape must then tell the rest."""
    try:
        async with asyncio.timeout(_PATIENCE_S), services.database.transaction() as session:
            return await repository.read(session, services.settings.worker_ttl_s)
    except (SQLAlchemyError, OSError) as error:  # a TimeoutError is an OSError
        log.warning("no figures of the database: %s", error)
        return None


async def _free(store: ObjectStore) -> int | None:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return await store.free_bytes()
    except OSError as error:
        log.warning("no figures of the store: %s", error)
        return None


def _pids(folder: Path) -> tuple[int, ...]:
    """The API processes that have figures in `folder`; gauges of those that are gone no longer count."""
    known = {int(match[1]) for path in folder.glob("*.db") if (match := re.search(r"_(\d+)\.db$", path.name))}
    alive = {pid for pid in known if Path("/proc", str(pid)).exists()}
    for pid in known - alive:
        mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
    return tuple(sorted(alive | {os.getpid()}))
