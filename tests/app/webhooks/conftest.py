"""A stage whose settings let webhooks reach loopback, the API on it, a receiver and senders."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

import httpx2
import pytest

from app.config import Settings
from app.jobs import transitions
from app.jobs.states import Event
from app.main import create_app
from app.rates import Rates
from app.storage import open_store
from app.web.services import Services
from app.webhooks.sender import sending
from tests.support.receiver import Receiver, receiving
from tests.support.stage import Stage


@pytest.fixture
def settings(settings: Settings) -> Settings:
    changes = {
        "webhook_allow_http": True,
        "webhook_allowed_networks": (ip_network("127.0.0.0/8"),),
        "webhook_retry_s": (0.01, 0.01),
        "webhook_poll_s": 0.02,
        "webhook_timeout_s": 5.0,
    }
    return settings.model_copy(update=changes)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@dataclass
class Hooks:
    """The API as an admin sees it, and the loop that sends."""

    stage: Stage
    client: httpx2.AsyncClient
    receiver: Receiver

    async def make(self, **fields: Any) -> dict[str, Any]:
        """A new webhook, as the API shows it."""
        body = {"url": self.receiver.url, "events": ["job.succeeded", "job.failed", "job.canceled"], **fields}
        response = await self.client.post("/v1/webhooks", json=body)
        assert response.status_code == 201, response.text
        made: dict[str, Any] = response.json()
        return made

    async def test(self, made: dict[str, Any]) -> dict[str, Any]:
        """A test event on its way."""
        response = await self.client.post(f"/v1/webhooks/{made['id']}:test")
        assert response.status_code == 202, response.text
        delivery: dict[str, Any] = response.json()
        return delivery

    async def cancel(self, **columns: Any) -> str:
        """A job that was canceled."""
        job_id = await self.stage.job(**columns)
        async with self.stage.database.transaction() as session:
            job = await transitions.lock(session, job_id)
            assert job is not None
            await transitions.move(session, job, Event.CANCEL)
        return job_id

    async def log(self, made: dict[str, Any]) -> list[dict[str, Any]]:
        """The webhook's log, newest first."""
        response = await self.client.get(f"/v1/webhooks/{made['id']}/deliveries")
        assert response.status_code == 200, response.text
        items: list[dict[str, Any]] = response.json()["items"]
        return items

    async def ended(self, made: dict[str, Any]) -> list[dict[str, Any]]:
        """The log, once nothing in it is on its way."""
        async with asyncio.timeout(20):
            for pause in itertools.repeat(0.02):
                log = await self.log(made)
                if all(row["finished_at"] is not None for row in log):
                    break
                await asyncio.sleep(pause)
        return log

    @asynccontextmanager
    async def sender(self) -> AsyncIterator[None]:
        """A process that sends, with connections of its own."""
        settings = self.stage.settings
        services = Services(
            settings, self.stage.database, open_store(settings), self.stage.queue, Rates(settings.broker_url)
        )
        try:
            async with sending(services):
                yield
        finally:
            await services.rates.close()


@pytest.fixture
async def hooks(stage: Stage, receiver: Receiver) -> AsyncIterator[Hooks]:
    app = create_app(stage.settings)
    transport = httpx2.ASGITransport(app=app)
    headers = await stage.key("admin")
    async with httpx2.AsyncClient(transport=transport, base_url="http://testserver", headers=headers) as client:
        yield Hooks(stage, client, receiver)
    await app.state.services.close()
