"""Files taken from buckets that the deployment allows; credentials and endpoint are those of the store (``AWS_*``)."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import S3Store as Bucket

from app.accounts import quotas
from app.errors import FieldError, Invalid
from app.storage import CHUNK, Stored
from app.uploads.keep import publish
from app.uploads.multipart import basename
from app.uploads.receive import receive_file
from app.web.services import Services

#: A source that does not answer must not hold a request for longer, in seconds.
_PATIENCE_S = 30


async def take(services: Services, workspace_id: str, source: str) -> tuple[str, Stored]:
    """Copies the object ``s3://BUCKET/KEY`` into the store. Returns its name and bytes.

    Raises:
        Invalid: ``source_not_allowed``, ``source_not_found``, ``source_unreadable``.
        Forbidden, UnsupportedMedia, PayloadTooLarge, InsufficientStorage, StorageUnavailable: as for any upload.
    """
    name, key = _allowed(source, services.settings.sources)
    options = {"allow_http": services.settings.s3_allow_http, "timeout": "1h"}
    with _faults(source):
        bucket = Bucket(name, client_options=options, retry_config={"max_retries": 2})  # type: ignore[arg-type]
        async with asyncio.timeout(_PATIENCE_S):
            size = (await obstore.head_async(bucket, key))["size"]
    async with services.database.transaction() as session:
        await quotas.hold_announced(session, services.settings, workspace_id, size)
    chunks = _read(bucket, key, source)
    async with receive_file(services, workspace_id, basename(key), size, chunks) as received:
        stored = await publish(services.database, received.staged, workspace_id)
    return received.filename, stored


@contextmanager
def _faults(source: str) -> Iterator[None]:
    """Around what asks the source alone: that the deployment's own store is away is no fault of a request."""
    try:
        yield
    except (NotFoundError, FileNotFoundError) as error:
        raise _invalid("source_not_found", f"There is no object {source!r}.") from error
    except (BaseError, OSError) as error:  # a TimeoutError is an OSError
        why = str(error).splitlines()[0] if str(error) else "it does not answer"
        raise _invalid("source_unreadable", f"{source!r} cannot be read by this service: {why}") from error


def _allowed(source: str, allowed: list[str]) -> tuple[str, str]:
    """Bucket and key of `source`, where it lies below one of the allowed places."""
    url = urlsplit(source)
    parts = url.path.split("/")[1:]
    plain = url.scheme == "s3" and bool(url.netloc) and not (url.query or url.fragment)
    plain = plain and bool(parts) and all(part not in ("", ".", "..") for part in parts)
    if plain and any(source.startswith(place.rstrip("/") + "/") for place in allowed):
        return url.netloc, url.path[1:]
    places = ", ".join(allowed) if allowed else "none"
    detail = f"{source[:200]!r} is not below a place that this deployment allows ({places}); send the file itself."
    raise _invalid("source_not_allowed", detail)


async def _read(bucket: Bucket, key: str, source: str) -> AsyncIterator[bytes]:
    with _faults(source):
        result = await obstore.get_async(bucket, key)
        async for chunk in result.stream(min_chunk_size=CHUNK):
            yield bytes(chunk)


def _invalid(code: str, detail: str) -> Invalid:
    return Invalid(detail, code=code, errors=[FieldError(pointer="/source", detail=detail)])
