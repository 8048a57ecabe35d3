"""Asking again until something is done."""

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from modelpress.errors import WaitTimeout
from modelpress.session import Session

T = TypeVar("T")

FIRST_S, LAST_S, GROWTH = 0.1, 2.0, 1.5


async def poll(
    session: Session, ask: Callable[[], Awaitable[T]], done: Callable[[T], bool], timeout_s: float | None
) -> T:
    """The first answer that is `done`; asked often at first, then every `LAST_S` seconds.

    Raises:
        WaitTimeout: none was, for `timeout_s` seconds.
    """
    ends = None if timeout_s is None else time.monotonic() + timeout_s
    pause = FIRST_S
    while not done(answer := await ask()):
        left = LAST_S if ends is None else ends - time.monotonic()
        if left <= 0:
            raise WaitTimeout(f"not finished after {timeout_s:g} s: {answer!r}")
        await session.wire.sleep(min(pause, left))
        pause = min(LAST_S, pause * GROWTH)
    return answer
