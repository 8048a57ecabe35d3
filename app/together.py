"""Questions that come while one is under way are asked together: a busy server asks once for many requests."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Key = TypeVar("Key")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class _Batch(Generic[Key, Answer]):
    keys: list[Key] = field(default_factory=list)
    waiting: "list[asyncio.Future[Answer]]" = field(default_factory=list)

    def settle(self, answers: Sequence[Answer]) -> None:
        for waiter, answer in zip(self.waiting, answers, strict=True):
            if not waiter.done():  # who went away is told nothing
                waiter.set_result(answer)

    def fail(self, error: Exception) -> None:
        for waiter in self.waiting:
            if not waiter.done():
                waiter.set_exception(error)


class Together(Generic[Key, Answer]):
    """Call it with a key for the answer; `ask` gets the keys of all who wait, and answers in their order.

    Nobody is given what was asked before his own question came, so an answer is as fresh as if he had asked alone.
    One question is under way at a time: the longer it takes, the more go together in the next.
    """

    def __init__(self, ask: Callable[[Sequence[Key]], Awaitable[Sequence[Answer]]]) -> None:
        self._ask = ask
        self._asking: asyncio.Task[None] | None = None
        #: Those who wait for their turn.
        self._next: _Batch[Key, Answer] = _Batch()

    async def __call__(self, key: Key) -> Answer:
        """The answer. Raises what `ask` raises, as do all who asked with it."""
        # A future each: a client that goes away does not take the others' answers along.
        waiter: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._next.keys.append(key)
        self._next.waiting.append(waiter)
        if self._asking is None:
            # In no request's context: its logs and traces are not those of whoever came first.
            self._asking = asyncio.create_task(self._answers(), context=Context())
        return await waiter

    async def _answers(self) -> None:
        try:
            while self._next.keys:
                batch, self._next = self._next, _Batch()
                try:
                    batch.settle(await self._ask(batch.keys))
                except Exception as error:  # noqa: BLE001 (theirs, not this task's)
                    batch.fail(error)
        finally:
            self._asking = None
