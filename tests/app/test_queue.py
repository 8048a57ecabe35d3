"""Look messages on a real broker, and without one."""

import asyncio
import json

import pytest
import redis

from app.config import Settings
from app.queue import LOOK, QUEUES, Queue


def settings(broker_url: str) -> Settings:
    return Settings(broker_url=broker_url, _env_file=None)


@pytest.mark.parametrize("name", QUEUES)
def test_a_look_arrives_on_its_queue(broker_url: str, redis_url: str, name: str) -> None:
    asyncio.run(Queue(settings(broker_url)).look(name))
    with redis.Redis.from_url(redis_url) as client:
        assert client.llen(name) == 1
        headers = json.loads(client.lindex(name, 0))["headers"]
    assert headers["task"] == LOOK
    assert headers["expires"] is None, "a worker whose clock is ahead would drop it"


def test_looks_from_many_requests_at_once(broker_url: str, redis_url: str) -> None:
    async def send() -> None:
        queue = Queue(settings(broker_url))
        await asyncio.gather(*(queue.look("cpu") for _ in range(30)))

    asyncio.run(send())
    with redis.Redis.from_url(redis_url) as client:
        assert client.llen("cpu") == 30


@pytest.mark.timeout(60)
def test_a_broker_that_is_away_costs_little_and_breaks_nothing(
    free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    asyncio.run(Queue(settings(f"redis://127.0.0.1:{free_port}/0")).look("cpu"))
    assert "look on cpu was not sent" in caplog.text


def test_a_restart_of_the_broker_loses_no_look(broker_url: str, redis_url: str) -> None:
    queue = Queue(settings(broker_url))
    asyncio.run(queue.look("cpu"))
    with redis.Redis.from_url(redis_url) as client:
        # What a restart does to connections that are kept open.
        client.client_kill_filter(_type="normal", skipme=True)
        asyncio.run(queue.look("cpu"))
        assert client.llen("cpu") == 2
