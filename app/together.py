"""Questions that come while one is under way are asked together: a busy server asks once for many requests."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class _Batch(Generic[Key, Answer]):
    keys: list[Key]
    answers: "asyncio.Task[Sequence[Answer]]"


class Together(Generic[Key, Answer]):
    """Call it with a key for the answer; `ask` gets the keys of all who wait, and answers in their order.

    Nobody is given what was asked before his own question came, so an answer is as fresh as if he had asked alone.
    One question is under way at a time: the longer it takes, the more go together in the next.
    """

    def __init__(self, ask: Callable[[Sequence[Key]], Awaitable[Sequence[Answer]]]) -> None:
        self._ask = ask
        self._turn = asyncio.Lock()
        #: Those who wait for their turn.
        self._open: _Batch[Key, Answer] | None = None

    async def __call__(self, key: Key) -> Answer:
        """The answer. Raises what `ask` raises, as do all who asked with it."""
        batch = self._open
        if batch is None:
            keys: list[Key] = []
            # In no request's context: its logs and traces are not those of whoever came first.
            answers = asyncio.create_task(self._answers(keys), context=Context())
            batch = self._open = _Batch(keys, answers)
        place = len(batch.keys)
        batch.keys.append(key)
        # A client that goes away must not take the others' answers along.
        return (await asyncio.shield(batch.answers))[place]

    async def _answers(self, keys: Sequence[Key]) -> Sequence[Answer]:
        async with self._turn:
            self._open = None
            return await self._ask(keys)
