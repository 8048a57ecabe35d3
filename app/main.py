"""The web process: `create_app` puts routers, error handler and lifespan together; nothing else happens here."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from app import tracing
from app.accounts.endpoints import router as accounts
from app.accounts.routes import PolledRoute, Polls
from app.artifacts.endpoints import keys as signing_keys
from app.artifacts.endpoints import router as artifacts
from app.audit.endpoints import router as audit
from app.catalog.endpoints import router as catalog
from app.config import Settings, get_settings
from app.datasets.endpoints import router as datasets
from app.db import Database
from app.jobs.background import in_background
from app.jobs.endpoints import polled as polled_jobs
from app.jobs.endpoints import router as jobs
from app.jobs.rendered import Rendered
from app.models.endpoints import router as models
from app.monitoring.endpoints import router as monitoring
from app.oidc import open_issuer
from app.pages import assets
from app.pages.endpoints import router as pages
from app.pages.errors import show as show_error
from app.proofs import Proofs
from app.queue import Queue
from app.rates import Rates
from app.signing import open_signer
from app.storage import open_store
from app.uploads.endpoints import router as uploads
from app.usage.endpoints import router as usage
from app.web import openapi, problems, requests
from app.web.health import Readiness
from app.web.health import router as health
from app.web.services import Services
from app.webhooks.endpoints import router as webhooks
from app.webhooks.sender import sending

#: In this order a request is matched: what is asked most comes first.
ROUTERS = (
    polled_jobs, jobs, uploads, artifacts, models, datasets, accounts, signing_keys, catalog, webhooks, audit, usage,
    health, monitoring, pages,
)  # fmt: skip


def create_app(settings: Settings | None = None) -> FastAPI:
    """The ASGI application. Raises ValueError where the settings cannot be right."""
    settings = settings or get_settings()
    if settings.auth_enabled and not settings.key_pepper.get_secret_value():
        raise ValueError("MODELPRESS_KEY_PEPPER is not set; API keys are hashed with it (or switch authentication off)")
    tracer_provider = tracing.start(settings, "modelpress-api")
    app = FastAPI(
        title="Modelpress",
        version=openapi.VERSION,
        description=openapi.DESCRIPTION,
        lifespan=_lifespan,
        # FastAPI's pages load scripts from a public CDN onto this origin, where keys are typed; /openapi.json stays.
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
        generate_unique_id_function=lambda route: route.name,  # what generated clients call their functions
        telemetry={
            "tracer_provider": tracer_provider,
            "tracing": tracer_provider is not None,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
            "exclude": lambda scope: scope["path"] in requests.PROBES,
        },
    )
    app.state.services = Services(
        settings,
        Database(settings),
        open_store(settings),
        Queue(settings),
        Rates(settings.broker_url),
        open_issuer(settings),
        open_signer(settings),
        Proofs(settings.key_memory_s),
    )
    app.state.readiness = Readiness(app.state.services)
    app.state.rendered = Rendered(app.state.services.database)
    for router in ROUTERS:
        app.include_router(router)
    assets.install(app)
    problems.install(app, show_error)
    openapi.install(app)
    polled = [route.original_route for route in iter_route_contexts(app.routes)]
    app.add_middleware(Polls, routes=[route for route in polled if isinstance(route, PolledRoute)])
    requests.install(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    try:
        async with in_background(services) as app.state.broadcast, sending(services):
            yield
    finally:
        app.state.readiness.stop()
        await services.close()
        await asyncio.to_thread(tracing.stop)
