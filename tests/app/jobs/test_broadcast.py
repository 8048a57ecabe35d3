"""Streams of one job share what they read, and never what was read before the news."""

import asyncio

import pytest

from app.config import Settings
from app.db import Database
from app.jobs import broadcast as module
from app.jobs.broadcast import Broadcast

pytestmark = pytest.mark.anyio


class Reads:
    """A query that is slow, counted, and answers how often it was started."""

    def __init__(self) -> None:
        self.count = 0
        self.gate = asyncio.Event()

    async def __call__(self) -> int:
        self.count += 1
        answer = self.count
        await self.gate.wait()
        return answer


@pytest.fixture
def broadcast() -> Broadcast:
    return Broadcast(Database(Settings(_env_file=None)))


async def test_streams_at_the_same_event_share_a_query(broadcast: Broadcast) -> None:
    reads = Reads()
    reads.gate.set()
    with broadcast.follow("job") as one, broadcast.follow("job") as two:
        assert tuple(await asyncio.gather(one.read(3, reads), two.read(3, reads), two.read(4, reads))) == (1, 1, 2)
        assert await one.read(3, reads) == 1


async def test_news_part_what_is_read_before_and_after(broadcast: Broadcast) -> None:
    reads = Reads()
    with broadcast.follow("job") as one, broadcast.follow("job") as two:
        before = asyncio.create_task(one.read(3, reads))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        broadcast._wake("job", "another")
        assert one.news.is_set()
        after = asyncio.create_task(two.read(3, reads))
        await asyncio.sleep(0)
        reads.gate.set()
        assert (await before, await after) == (1, 2)
        assert one.news.is_set(), "the news came after it had begun to read"


async def test_a_stream_that_goes_away_takes_nothing_from_the_others(broadcast: Broadcast) -> None:
    reads = Reads()
    with broadcast.follow("job") as one, broadcast.follow("job") as two:
        first, second = (asyncio.create_task(who.read(3, reads)) for who in (one, two))
        await asyncio.sleep(0)
        first.cancel()
        reads.gate.set()
        assert await second == 1


async def test_failures_and_what_is_old_are_not_shared(broadcast: Broadcast, monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing() -> int:
        raise OSError("the database is away")

    reads = Reads()
    reads.gate.set()
    with broadcast.follow("job") as one:
        with pytest.raises(OSError, match="away"):
            await one.read(3, failing)
        assert await one.read(3, reads) == 1
        monkeypatch.setattr(module, "SHARED_S", 0.0)
        assert await one.read(3, reads) == 2
