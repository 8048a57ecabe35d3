"""RFC 9457 problem+json: one shape for every error, one place that makes it, and its description in OpenAPI."""

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from app.errors import (
    ApiError,
    BadRequest,
    ChecksumMismatch,
    FieldError,
    Forbidden,
    Invalid,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    UnsupportedMedia,
)
from app.storage import StorageUnavailable

MEDIA_TYPE = "application/problem+json"
Show = Callable[[Request, ApiError], Response]
_BY_STATUS: dict[int, type[ApiError]] = {
    error.status: error
    for error in (
        BadRequest,
        Unauthenticated,
        Forbidden,
        NotFound,
        MethodNotAllowed,
        PayloadTooLarge,
        UnsupportedMedia,
        Invalid,
        TooManyRequests,
    )
}
#: What any authenticated route can answer.
_ALWAYS = (400, 401, 403, 422, 429, 500, 503)

#: What pydantic calls a body that is something else, or text because its Content-Type does not say JSON.
_NO_OBJECT = ("dict_type", "model_attributes_type", "model_type")

log = logging.getLogger(__name__)


class Fault(BaseModel):
    """One fault in a request."""

    pointer: str = Field(description="RFC 6901 pointer into the body; /query/..., /path/... or /header/... elsewhere.")
    detail: str
    code: str | None = Field(None, description="Where the fault has a code of its own.")


class Problem(BaseModel):
    """RFC 9457 problem details; `code` is stable (docs/errors.md)."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:modelpress:error:not_found"])
    title: str
    status: int
    detail: str
    instance: str = Field(description="Names the request in the server's log.", examples=["urn:modelpress:request:1f"])
    code: str = Field(examples=["not_found"])
    errors: list[Fault] | None = Field(None, description="For 422: every fault that was found.")


def responses(*statuses: int, always: tuple[int, ...] = _ALWAYS) -> dict[int | str, dict[str, Any]]:
    """The error responses of a route for OpenAPI: `statuses`, and those that every authenticated route has."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _phrase(status), "content": content} for status in sorted({*always, *statuses})}


def _phrase(status: int) -> str:
    return ChecksumMismatch.title if status == ChecksumMismatch.status else HTTPStatus(status).phrase


def response(error: ApiError, request_id: str) -> Response:
    """What tells `error` of the request with this id."""
    body: dict[str, Any] = {
        "type": f"urn:modelpress:error:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": f"urn:modelpress:request:{request_id}",
        "code": error.code,
    }
    if error.errors:
        body["errors"] = error.errors
    headers = dict(error.headers)
    if error.status in (429, 503):
        headers.setdefault("Retry-After", "5")
    return JSONResponse(body, error.status, headers, media_type=MEDIA_TYPE)


def render(request: Request, error: ApiError) -> Response:
    """The response that tells `error`."""
    return response(error, request.scope.get("state", {}).get("request_id", "unknown"))


def answer(request: Request, error: ApiError) -> Response:
    """The same as this application shows it: `render`, unless it has pages for people."""
    show: Show = request.app.state.show_error
    return show(request, error)


def as_api_error(error: Exception) -> ApiError | None:
    """`error` in our own tree; None where it is a fault of the server."""
    match error:
        case ApiError():
            return error
        case RequestValidationError():
            return _from_validation(error)
        case HTTPException():
            return _from_http(error.status_code, error.detail, error.headers)
        case OperationalError() | InterfaceError() | PoolTimeout():
            log.error("database: %s", error)
            return Unavailable("The database does not answer; try again.", code="database_unavailable")
        case StorageUnavailable():
            log.error("store: %s", error)
            return Unavailable("The store of the files does not answer; try again.", code="store_unavailable")
    return None


def answer_to(request: Request, error: Exception) -> Response:
    """What answers an exception. Raises it where it is a fault of the server."""
    known = as_api_error(error)
    if known is None:
        raise error
    return answer(request, known)


def install(app: FastAPI, show: Show | None = None) -> None:
    """Answers every known exception (unknown ones: `app.web.requests`) with what `show` makes, or as problem+json."""
    app.state.show_error = show or render

    async def handle(request: Request, error: Exception) -> Response:
        return answer_to(request, error)

    away = (OperationalError, InterfaceError, PoolTimeout, StorageUnavailable)
    for kind in (ApiError, RequestValidationError, HTTPException, *away):
        app.add_exception_handler(kind, handle)


def _from_http(status: int, detail: str, headers: Mapping[str, str] | None) -> ApiError:
    kind = _BY_STATUS.get(status)
    if kind is None:
        kind = cast(
            "type[ApiError]", type("Other", (ApiError,), {"status": status, "title": HTTPStatus(status).phrase})
        )
        return kind(detail, code=HTTPStatus(status).phrase.lower().replace(" ", "_"), headers=headers)
    sentences = {404: "There is nothing at this path.", 405: "This path does not take this method."}
    return kind(sentences.get(status, detail), headers=headers)


def _from_validation(error: RequestValidationError) -> ApiError:
    faults = error.errors()
    for fault in faults:
        if fault["type"] == "json_invalid" and "ctx" in fault:
            return BadRequest(f"The body is not valid JSON: {fault['ctx']['error']}.", code="invalid_json")
    errors = [FieldError(pointer=_pointer(fault["loc"]), detail=_sentence(fault)) for fault in faults]
    detail = "; ".join(f"{e['pointer'] or 'body'}: {e['detail']}" for e in errors[:3])
    return Invalid(detail if len(errors) <= 3 else f"{detail}; and {len(errors) - 3} more", errors=errors)


def _pointer(location: tuple[int | str, ...]) -> str:
    parts = location[1:] if location[:1] == ("body",) else location
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def _sentence(fault: Mapping[str, Any]) -> str:
    if fault["type"] in _NO_OBJECT and fault["loc"] == ("body",):
        return "must be a JSON object, sent with Content-Type: application/json"
    message = str(fault["msg"]).removeprefix("Value error, ")
    return message if fault["type"] != "extra_forbidden" else "unknown field"
