"""The object store: bytes by SHA-256, on a local disk or in S3."""

from urllib.parse import unquote, urlsplit

from app.config import Settings
from app.storage.base import CHUNK, ObjectMissing, ObjectStore, Staged, StorageUnavailable, Stored, StoreFull
from app.storage.files import send_file
from app.storage.local import LocalStore
from app.storage.s3 import S3Store

__all__ = [
    "CHUNK",
    "LocalStore",
    "ObjectMissing",
    "ObjectStore",
    "S3Store",
    "Staged",
    "StorageUnavailable",
    "StoreFull",
    "Stored",
    "open_store",
    "send_file",
]


def open_store(settings: Settings) -> ObjectStore:
    """The store that ``store_url`` names. Raises ValueError where it names none."""
    url = urlsplit(settings.store_url)
    if url.scheme == "file" and url.netloc in ("", "localhost") and url.path:
        return LocalStore(unquote(url.path))
    if url.scheme == "s3" and url.netloc:
        return S3Store(url.netloc, url.path.strip("/"), settings)
    raise ValueError(f"store_url must be file:///DIR or s3://BUCKET/PREFIX, not {settings.store_url!r}")
