"""The loop of an API process that sends what is due. Several processes share the work by leases in the database."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sqlalchemy.exc import SQLAlchemyError

from app.beside import beside
from app.clock import clock
from app.config import Settings
from app.db import Database
from app.web.services import Services
from app.webhooks import claims, repository
from app.webhooks.attempt import DISABLED, GONE, Outcome, Poster, pause_after
from app.webhooks.claims import Claim
from app.webhooks.network import Resolve, look_up
from app.webhooks.signing import secrets_of, signed_headers

#: Messages that one process sends at once.
SLOTS = 16
#: A lease lasts so much longer than an attempt may, in seconds.
_MARGIN_S = 30.0

log = logging.getLogger(__name__)


class Sender:
    """The loop of one API process."""

    def __init__(self, settings: Settings, database: Database, resolve: Resolve = look_up) -> None:
        self._settings = settings
        self._database = database
        self._poster = Poster(settings, SLOTS, resolve)

    async def run(self) -> None:
        """Sends until it is cancelled. What is then under way is sent again once its lease is over."""
        sending: set[asyncio.Task[None]] = set()
        try:
            while True:
                for claimed in await self._due(SLOTS - len(sending)):
                    sending.add(asyncio.create_task(self._deliver(claimed)))
                await _first(sending, self._settings.webhook_poll_s)
                sending = {task for task in sending if not task.done()}
        finally:
            for task in sending:
                task.cancel()
            await asyncio.gather(*sending, return_exceptions=True)
            await self._poster.close()

    async def _due(self, room: int) -> Sequence[Claim]:
        if room == 0:
            return ()
        try:
            async with self._database.transaction() as session:
                return await claims.claim(session, room, self._settings.webhook_timeout_s + _MARGIN_S)
        except (SQLAlchemyError, OSError) as error:
            log.warning("webhooks cannot be sent: %s", error)
        except Exception:
            log.exception("webhooks cannot be sent")
        return ()

    async def _deliver(self, claimed: Claim) -> None:
        try:
            await self._record(claimed, await self._attempt(claimed))
        except Exception:
            log.exception("what came of delivery %s is not recorded: it will be sent again", claimed.delivery.id)

    async def _attempt(self, claimed: Claim) -> Outcome:
        webhook, delivery = claimed.webhook, claimed.delivery
        if not webhook.enabled:
            return DISABLED
        # By the database's clock, as everything about deliveries: this machine's own may be off.
        signing_secrets = secrets_of(self._settings.key_pepper, webhook, claimed.at)
        headers = signed_headers(signing_secrets, delivery.id, claimed.at, delivery.body)
        return await self._poster.post(webhook.url, headers, delivery.body)

    async def _record(self, claimed: Claim, outcome: Outcome) -> None:
        pause_s = pause_after(outcome, claimed.attempt, self._settings.webhook_retry_s)
        async with self._database.transaction() as session:
            if outcome.status == GONE:
                # Before the delivery's row is locked, as who deletes a webhook locks them in this order.
                await repository.disable(session, claimed.webhook, "the receiver answered 410: it is gone")
            now = await clock(session)
            if not await claims.record(session, claimed, outcome, now, pause_s):
                log.info("delivery %s is in other hands by now", claimed.delivery.id)


async def _first(tasks: set[asyncio.Task[None]], patience_s: float) -> None:
    """Waits until a slot gets free, but no longer than until the next look."""
    if tasks:
        await asyncio.wait(tasks, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
    else:
        await asyncio.sleep(patience_s)


@asynccontextmanager
async def sending(services: Services) -> AsyncIterator[None]:
    """Sends webhooks while the block runs."""
    async with beside(Sender(services.settings, services.database).run()):
        yield
