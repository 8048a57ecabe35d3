"""What an API process does for jobs besides answering requests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.beside import beside
from app.jobs.broadcast import Broadcast
from app.jobs.leases import Leases
from app.jobs.maintenance import Maintenance
from app.web.services import Services


@asynccontextmanager
async def in_background(services: Services) -> AsyncIterator[Broadcast]:
    """Listens and does maintenance while the block runs; what it gives belongs in ``app.state.broadcast``."""
    broadcast = Broadcast(services.database)
    leases = Leases(services.settings, services.queue)
    maintenance = Maintenance(services.settings, services.database, services.store, leases)
    async with beside(broadcast.run(), maintenance.run()):
        yield broadcast
