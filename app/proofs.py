"""Keys that were proved a moment ago, so that not every request of a busy client asks the database for its key.

Docs: docs/decisions/0015-proved-keys-are-remembered.md. Remembered by the keyed hash of the whole key, in this process
alone; nothing that a stranger sends gets in.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

Who = TypeVar("Who")
#: Past so many, all are forgotten.
MOST = 10_000


@dataclass(frozen=True)
class _Proof(Generic[Who]):
    who: Who
    key_id: str
    until: float


class Proofs(Generic[Who]):
    """Hash of a key -> who proved it, for `seconds` at most, and never beyond the key's own end; 0: nothing is kept."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._proofs: dict[bytes, _Proof[Who]] = {}
        self._turns: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()

    def turn(self, digest: bytes) -> AbstractAsyncContextManager[None]:
        """Hold it while you ask for that key: those who come meanwhile find the answer afterwards.

        Else all requests of a busy client would ask at once, each time that its proof is forgotten.
        """
        if self._seconds <= 0:
            return nullcontext()
        return self._turns.setdefault(digest, asyncio.Lock())

    def get(self, digest: bytes) -> Who | None:
        """Who proved that key a moment ago."""
        proof = self._proofs.get(digest)
        return proof.who if proof is not None and time.monotonic() < proof.until else None

    def put(self, digest: bytes, who: Who, key_id: str, expires_at: datetime | None, asked: float) -> None:
        """Remembers a key that was found valid by a question asked at `asked` (of ``time.monotonic()``)."""
        left = self._seconds
        if expires_at is not None:
            left = min(left, (expires_at - datetime.now(UTC)).total_seconds())
        if left <= 0:
            return
        if len(self._proofs) >= MOST:
            self._proofs.clear()
        self._proofs[digest] = _Proof(who, key_id, asked + left)

    def forgetting(self, key_id: str) -> Callable[[], Awaitable[None]]:
        """For after the commit that ends or shortens a key: this process knows at once, the others soon."""

        async def forget() -> None:
            self._proofs = {digest: proof for digest, proof in self._proofs.items() if proof.key_id != key_id}

        return forget
