"""How much more may arrive: the deployment's limit of an upload, and the disk."""

from app.config import Settings
from app.errors import InsufficientStorage, PayloadTooLarge
from app.storage import ObjectStore

#: How often the free disk is looked at while bytes arrive.
_LOOK_EVERY = 64 * 1024**2


class Room:
    """Asked before bytes are taken."""

    def __init__(self, store: ObjectStore, settings: Settings) -> None:
        self._store = store
        self._limit = settings.max_upload_bytes
        self._reserve = settings.min_free_disk_bytes

    async def for_length(self, length: int, overhead: int = 0) -> None:
        """Refuses what cannot be taken before its first byte: `length` bytes, of which `overhead` are not the file.

        Raises `PayloadTooLarge`, `InsufficientStorage`.
        """
        if length > self._limit + overhead:
            raise self._too_large()
        await self._look(length)

    async def for_file(self, size: int, added: int) -> None:
        """The file has reached `size` bytes, of which `added` are new. Raises as `for_length` does."""
        if size > self._limit:
            raise self._too_large()
        if size // _LOOK_EVERY != (size - added) // _LOOK_EVERY:
            await self._look(0)

    async def _look(self, needed: int) -> None:
        free = await self._store.free_bytes()
        if free is not None and free - needed < self._reserve:
            raise no_room()

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"An upload may have at most {self._limit} bytes here (MODELPRESS_MAX_UPLOAD_BYTES).")


def no_room() -> InsufficientStorage:
    """The error of a store that is full."""
    return InsufficientStorage("The store has too little free space for this upload; try again when room was made.")
