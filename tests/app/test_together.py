"""Questions that are asked together: answers as fresh as one's own, failures for all, nobody waits for who left."""

import asyncio
from collections.abc import Sequence

import pytest

from app.together import Together

pytestmark = pytest.mark.anyio


class Asked:
    """Doubles; records what came together, and waits for `go` before it answers."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = asyncio.Event()

    async def __call__(self, keys: Sequence[int]) -> list[int]:
        self.batches.append(list(keys))
        await self.go.wait()
        if 13 in keys:
            raise ValueError("unlucky")
        return [2 * key for key in keys]


@pytest.fixture
async def asked() -> Asked:
    return Asked()


async def _started(together: Together[int, int], *keys: int) -> list["asyncio.Task[int]"]:
    tasks = [asyncio.create_task(together(key)) for key in keys]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_who_comes_at_once_asks_once(asked: Asked) -> None:
    asked.go.set()
    together = Together(asked)
    assert await asyncio.gather(*map(together, (3, 1, 3))) == [6, 2, 6]
    assert asked.batches == [[3, 1, 3]]


async def test_who_comes_later_gets_an_answer_of_his_own_time(asked: Asked) -> None:
    together = Together(asked)
    first = await _started(together, 1)
    later = await _started(together, 2, 1)
    assert asked.batches == [[1]]
    asked.go.set()
    assert await asyncio.gather(*first, *later) == [2, 4, 2]
    assert asked.batches == [[1], [2, 1]]


async def test_a_failure_is_told_to_those_who_asked_with_it(asked: Asked) -> None:
    together = Together(asked)
    unlucky = await _started(together, 13, 1)
    lucky = await _started(together, 2)
    asked.go.set()
    assert [type(one) for one in await asyncio.gather(*unlucky, return_exceptions=True)] == [ValueError] * 2
    assert await asyncio.gather(*lucky) == [4]


async def test_who_leaves_takes_nobody_along(asked: Asked) -> None:
    together = Together(asked)
    leaving, staying = await _started(together, 1, 2)
    leaving.cancel()
    asked.go.set()
    assert await staying == 4
    assert leaving.cancelled()
