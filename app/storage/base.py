"""What an object store can do. Bytes are known by workspace and SHA-256; nothing else names them.

Everything that asks a store raises OSError where that cannot be used now; one on the network: `StorageUnavailable`.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

#: Size of the pieces that bytes are read, hashed and written in.
CHUNK = 1024**2


@dataclass(frozen=True)
class Stored:
    """Bytes that were received: their digest in hexadecimal and their number."""

    sha256: str
    size_bytes: int


class ObjectMissing(Exception):
    """The store does not have these bytes."""


class StoreFull(Exception):
    """There is no room for these bytes."""


class StorageUnavailable(OSError):
    """The store does not answer, or refuses this service."""


class Staged(Protocol):
    """Bytes on their way in; nobody sees them until `publish`."""

    async def write(self, data: bytes) -> None:
        """Takes more bytes. Raises `StoreFull`."""

    async def finish(self) -> Stored:
        """No more bytes follow: what was received. They are durable, but not yet published."""

    async def publish(self) -> None:
        """Makes the finished bytes readable under their digest, at once and as a whole."""


class ObjectStore(Protocol):
    """Content-addressed bytes, kept apart per workspace."""

    def stage(self, workspace_id: str) -> AbstractAsyncContextManager[Staged]:
        """Receives bytes; what was not published when the block ends is gone."""

    async def size(self, workspace_id: str, sha256: str) -> int:
        """Number of bytes. Raises `ObjectMissing`."""

    def read(self, workspace_id: str, sha256: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `start` up to, not including, `end`, in pieces. Raises `ObjectMissing`."""

    async def delete(self, workspace_id: str, sha256: str) -> None:
        """Removes bytes; none there is no error."""

    async def signed_url(self, workspace_id: str, sha256: str) -> str | None:
        """An expiring URL for a client's GET, which the store itself answers; None where the store has none."""

    async def free_bytes(self) -> int | None:
        """Room that is left; None where there is no limit."""

    async def check(self) -> None:
        """Raises OSError where the store cannot be used now."""

    async def remove_leftovers(self) -> None:
        """Removes what killed processes left half received, a day after its last byte; for the maintenance loop."""

    async def get_file(self, workspace_id: str, sha256: str, path: Path) -> None:
        """Writes the bytes to `path`. Raises `ObjectMissing`, or OSError where they do not have the digest."""
