"""Keys that were proved a moment ago: asked for once by all who come at once, believed for as long as was said."""

import asyncio
import time

import pytest

from app.proofs import Proofs

pytestmark = pytest.mark.anyio
DIGEST = b"digest"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Door:
    """Asks for a key as the service does, and counts how often."""

    def __init__(self, seconds: float) -> None:
        self.proofs: Proofs[str] = Proofs(seconds)
        self.asked = 0

    async def enter(self) -> str:
        async with self.proofs.turn(DIGEST):
            known = self.proofs.get(DIGEST)
            if known is not None:
                return known
            asked = time.monotonic()
            self.asked += 1
            await asyncio.sleep(0.01)
            self.proofs.put(DIGEST, "ada", "key_1", None, asked)
            return "ada"


@pytest.mark.parametrize(("seconds", "asked"), [(60, 1), (0, 20)])
async def test_those_who_come_at_once_ask_once_unless_nothing_is_believed(seconds: float, asked: int) -> None:
    door = Door(seconds)
    assert set(await asyncio.gather(*(door.enter() for _ in range(20)))) == {"ada"}
    assert door.asked == asked


async def test_a_key_that_ends_is_asked_for_anew() -> None:
    door = Door(60)
    await door.enter()
    await door.proofs.forgetting("key_2")()
    await door.enter()
    assert door.asked == 1
    await door.proofs.forgetting("key_1")()
    await door.enter()
    assert door.asked == 2
