"""``/v1/uploads``: tus 1.0 (core, creation, checksum, expiration, termination), for any stock client."""

import json
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from starlette.datastructures import Headers
from starlette.routing import Match
from starlette.types import Scope

from app.accounts.caller import Member, Reader
from app.accounts.idempotency import digest_of
from app.accounts.routes import WorkspaceRoute, get_once
from app.errors import UnsupportedMedia
from app.tables import ResumableUpload
from app.uploads import resumable, tus
from app.uploads.multipart import basename
from app.web.problems import as_api_error, responses
from app.web.services import ServicesDep, SessionDep

#: What every answer says, errors too.
_SPOKEN = {"Tus-Resumable": tus.VERSION}


class TusRoute(WorkspaceRoute):
    """Bodies of any kind are read as a stream, and every answer says which protocol is spoken.

    A POST can mean another method, for clients whose surroundings know no PATCH and DELETE (the protocol asks for it).
    It is one from here on: its endpoint answers, with the role that it asks for, and the audit log names it. It takes
    no Idempotency-Key: `Upload-Offset` already keeps bytes from being taken twice.
    """

    streamed = ("",)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether this is the route of a request, by the method that it means."""
        match, found = super().matches(scope)
        if match is Match.PARTIAL and scope["method"] == "POST":
            meant = Headers(scope=scope).get("x-http-method-override", "").upper()
            if meant in (self.methods or ()):
                return Match.FULL, {**found, "method": meant}
        return match, found

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint, with the protocol's header on its answers."""
        handle = super().get_route_handler()

        async def speak(request: Request) -> Response:
            try:
                response = await handle(request)
            except Exception as error:
                known = as_api_error(error)
                if known is None:
                    raise
                known.headers |= _SPOKEN
                raise known from error
            response.headers.update(_SPOKEN)
            return response

        return speak


async def _version(
    _: Reader, sent: Annotated[str | None, Header(alias="Tus-Resumable", description="1.0.0")] = None
) -> None:
    tus.require_version(sent)


router = APIRouter(prefix="/v1/uploads", tags=["uploads"], route_class=TusRoute)
_TUS = [Depends(_version)]
_FAULTS = (404, 410, 412)
_BYTES: dict[str, Any] = {
    "requestBody": {"content": {tus.MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}, "required": True}
}


@router.options("", status_code=204, summary="What of tus is spoken", responses=responses())
async def upload_options(caller: Reader, services: ServicesDep) -> Response:
    """Version, extensions, largest upload, checksums."""
    headers = {
        "Tus-Version": tus.VERSION,
        "Tus-Extension": tus.EXTENSIONS,
        "Tus-Max-Size": str(services.settings.max_upload_bytes),
        "Tus-Checksum-Algorithm": ",".join(tus.ALGORITHMS),
    }
    return Response(status_code=204, headers=headers)


@router.post(
    "",
    status_code=201,
    summary="Begin a resumable upload",
    dependencies=_TUS,
    response_class=Response,
    responses=responses(409, 412, 413, 415, 507),
)
async def create_upload(
    request: Request,
    caller: Member,
    session: SessionDep,
    services: ServicesDep,
    upload_length: Annotated[str | None, Header(description="Bytes of the whole file.")] = None,
    upload_metadata: Annotated[str, Header(description="`filename` and others: `key base64,key base64`.")] = "",
) -> Response:
    """Answers with the upload's `Location`; its id goes into the `upload_id` of a model or dataset."""
    size = tus.number("Upload-Length", upload_length)
    filename = basename(tus.metadata(upload_metadata).get("filename", "upload"))
    once = get_once(request)
    if once is not None:
        once.settle(digest_of(request, json.dumps([size, upload_metadata]).encode()))
    upload = await resumable.create(session, services, caller.workspace_id, size, filename, upload_metadata)
    location = str(request.url_for("upload_offset", upload_id=upload.id))
    return Response(status_code=201, headers={"Location": location, **_state(upload)})


@router.head(
    "/{upload_id}",
    summary="How far an upload has come",
    dependencies=_TUS,
    response_class=Response,
    responses=responses(*_FAULTS),
)
async def upload_offset(upload_id: str, caller: Reader, services: ServicesDep) -> Response:
    """`Upload-Offset` is where to go on."""
    upload = await resumable.find(services, caller.workspace_id, upload_id)
    headers = {"Upload-Length": str(upload.size_bytes), "Cache-Control": "no-store", **_state(upload)}
    if upload.meta:
        headers["Upload-Metadata"] = upload.meta
    return Response(status_code=200, headers=headers)


@router.patch(
    "/{upload_id}",
    status_code=204,
    summary="Send bytes of an upload",
    dependencies=_TUS,
    responses=responses(*_FAULTS, 409, 413, 415, 460, 507),
    openapi_extra=_BYTES,
)
async def append_upload(
    request: Request,
    upload_id: str,
    caller: Member,
    services: ServicesDep,
    upload_offset: Annotated[str | None, Header(description="Where the bytes begin.")] = None,
    upload_checksum: Annotated[str | None, Header(description="`sha1`, `sha256` or `sha512`, and base64.")] = None,
) -> Response:
    """Bytes are kept as they arrive: after a cut, ask with HEAD and go on."""
    upload = await resumable.find(services, caller.workspace_id, upload_id)
    if request.headers.get("content-type", "") != tus.MEDIA_TYPE:
        raise UnsupportedMedia(f"Bytes of an upload are sent as Content-Type: {tus.MEDIA_TYPE}.")
    offset = tus.number("Upload-Offset", upload_offset)
    checksum = tus.Checksum.of(upload_checksum)
    upload = await resumable.append(services, upload, offset, request.stream(), checksum)
    return Response(status_code=204, headers=_state(upload))


@router.delete(
    "/{upload_id}", status_code=204, summary="Give up an upload", dependencies=_TUS, responses=responses(*_FAULTS)
)
async def delete_upload(upload_id: str, caller: Member, session: SessionDep, services: ServicesDep) -> None:
    """Its bytes are removed, unless a model or dataset was made of them."""
    await resumable.discard(session, services, caller.workspace_id, upload_id)


def _state(upload: ResumableUpload) -> dict[str, str]:
    return {"Upload-Offset": str(upload.received_bytes), "Upload-Expires": tus.http_date(upload.expires_at)}
