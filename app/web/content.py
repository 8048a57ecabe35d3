"""Downloads: strong ETag, Content-Digest, ranges, conditional requests, HEAD; or a redirect to the store itself."""

import base64
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from app.errors import NotFound, RangeNotSatisfiable
from app.storage import ObjectMissing, ObjectStore
from app.web.problems import responses

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_BYTES: dict[str, Any] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}

#: For OpenAPI: what a download can answer.
CONTENT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The bytes", "content": _BYTES},
    206: {"description": "The range asked for", "content": _BYTES},
    304: {"description": "The client's copy is the same"},
    307: {"description": "GET: the store's own address of the bytes, valid for some minutes"},
    **responses(404, 416),
}


@dataclass(frozen=True)
class Content:
    """Bytes in the store, and what the client should call them."""

    workspace_id: str
    sha256: str
    size_bytes: int
    filename: str


async def send(request: Request, store: ObjectStore, content: Content) -> Response:
    """The answer to a GET or HEAD of `content`. Raises `RangeNotSatisfiable`, `NotFound`."""
    etag = f'"{content.sha256}"'
    if matches(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers={"ETag": etag})
    if request.method == "GET":  # the store would refuse a HEAD of what was signed for a GET
        url = await store.signed_url(content.workspace_id, content.sha256)
        if url is not None:
            return RedirectResponse(url, 307, headers={"Cache-Control": "no-store"})
    try:
        # A lost object must be an error, not a cut answer.
        await store.size(content.workspace_id, content.sha256)
    except ObjectMissing as error:
        raise NotFound("The bytes are no longer in the store.", code="content_missing") from error
    part = _part(request, etag, content.size_bytes)
    start, end = part or (0, content.size_bytes)
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Content-Length": str(end - start),
        "Content-Disposition": disposition(content.filename),
        "Cache-Control": "private, no-cache",
        "X-Content-Type-Options": "nosniff",
    }
    if part is None:
        headers["Content-Digest"] = f"sha-256=:{base64.b64encode(bytes.fromhex(content.sha256)).decode()}:"
    else:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{content.size_bytes}"
    body = _nothing() if request.method == "HEAD" else store.read(content.workspace_id, content.sha256, start, end)
    return StreamingResponse(body, 200 if part is None else 206, headers, media_type="application/octet-stream")


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


def _part(request: Request, etag: str, size: int) -> tuple[int, int] | None:
    """The range asked for as [start, end); None for everything: also where several are asked for (RFC 9110, 14.2)."""
    match = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    if match is None or match[1] == match[2] == "" or request.method != "GET":
        return None
    condition = request.headers.get("if-range")
    if condition is not None and condition.strip() != etag:
        return None
    if match[1] == "":
        start, end = max(0, size - int(match[2])), size
    else:
        start, end = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
        if match[2] and int(match[2]) < start:
            return None
    if start >= size or start >= end:
        raise RangeNotSatisfiable(
            f"The content has {size} bytes; the range asked for lies outside.",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, end


def matches(header: str, etag: str) -> bool:
    """Whether an ``If-None-Match`` names this ETag."""
    candidates = [part.strip().removeprefix("W/") for part in header.split(",")]
    return "*" in candidates or etag in candidates


def disposition(filename: str) -> str:
    """``Content-Disposition`` of a download of that name."""
    plain = re.sub(r"[^A-Za-z0-9._ -]", "_", filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"
