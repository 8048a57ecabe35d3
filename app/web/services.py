"""What every request can reach: settings, database, object store, queue, rates, issuer of tokens, signer."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession

from app.config import Settings
from app.db import Database
from app.oidc import Issuer
from app.proofs import Proofs
from app.queue import Queue
from app.rates import Rates
from app.signing import Signer
from app.storage import ObjectStore


@dataclass(frozen=True)
class Services:
    """Built once per process by `app.main.create_app`; lives in ``app.state.services``."""

    settings: Settings
    database: Database
    store: ObjectStore
    queue: Queue
    rates: Rates
    issuer: Issuer | None = None
    signer: Signer | None = None
    #: Who proved which key a moment ago.
    proofs: Proofs[Any] = field(default_factory=lambda: Proofs(0))

    async def close(self) -> None:
        """Closes every connection."""
        await self.rates.close()
        await self.database.close()


def get_services(request: Request) -> Services:
    """The services of the application that serves `request`."""
    services: Services = request.app.state.services
    return services


# FastAPI runs dependencies that are no coroutines in threads, which costs more than the rest of a small request.
async def _services(request: Request) -> Services:
    return get_services(request)


async def _session(request: Request) -> AsyncSession:
    """The transaction of this request, opened by `app.accounts.routes.WorkspaceRoute` and committed by it.

    It takes a connection from the pool with its first statement, so an upload holds none while it streams.
    """
    session: AsyncSession = request.state.session
    return session


ServicesDep = Annotated[Services, Depends(_services)]
SessionDep = Annotated[AsyncSession, Depends(_session)]
