"""The error tree of the API; each class carries its HTTP status and stable code.

ApiError
├── NotFound 404            Unauthenticated 401        Forbidden 403
├── Gone 410                PreconditionFailed 412     ChecksumMismatch 460
├── Conflict 409            (object_in_use, job_already_finished, job_running, request_in_progress, ...)
├── PayloadTooLarge 413     UnsupportedMedia 415       Invalid 422 (with errors: [{pointer, detail}])
├── TooManyRequests 429     InsufficientStorage 507    Unavailable 503 (429 and 503 with Retry-After)
├── BadRequest 400          MethodNotAllowed 405       RangeNotSatisfiable 416
└── RequestTimeout 408      HeadTooLarge 431           (of a connection: app.embedded.protocol)

The codes are listed for users in docs/errors.md.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, NotRequired, TypedDict


class FieldError(TypedDict):
    """One fault in a request body. ``pointer`` is an RFC 6901 JSON pointer; ``code`` where it has one of its own."""

    pointer: str
    detail: str
    code: NotRequired[str]


class ApiError(Exception):
    """Root: rendered as RFC 9457 problem+json by one handler."""

    status: ClassVar[int] = 500
    code: str = "internal_error"
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.errors = list(errors)
        self.headers = dict(headers or {})


class BadRequest(ApiError):
    """The request cannot be understood."""

    status, code, title = 400, "bad_request", "Bad request"


class Unauthenticated(ApiError):
    """No valid key was sent."""

    status, code, title = 401, "unauthenticated", "Not authenticated"


class Forbidden(ApiError):
    """The key's role does not allow this."""

    status, code, title = 403, "forbidden", "Not allowed"


class NotFound(ApiError):
    """No such object in this workspace."""

    status, code, title = 404, "not_found", "Not found"


class MethodNotAllowed(ApiError):
    """The path exists, the HTTP method does not."""

    status, code, title = 405, "method_not_allowed", "Method not allowed"


class RequestTimeout(ApiError):
    """The request line and the headers take too long to come."""

    status, code, title = 408, "request_timeout", "Request timeout"


class Conflict(ApiError):
    """The object's state forbids this now."""

    status, code, title = 409, "conflict", "Conflict"


class Gone(ApiError):
    """The object was there, and is no more."""

    status, code, title = 410, "gone", "Gone"


class PreconditionFailed(ApiError):
    """The client asks for another version of a protocol."""

    status, code, title = 412, "precondition_failed", "Precondition failed"


class ChecksumMismatch(ApiError):
    """The bytes are not those of the checksum sent with them (a status of the tus protocol)."""

    status, code, title = 460, "checksum_mismatch", "Checksum mismatch"


class PayloadTooLarge(ApiError):
    """The upload is over the deployment's limit."""

    status, code, title = 413, "payload_too_large", "Payload too large"


class UnsupportedMedia(ApiError):
    """The file or body is of a kind that is refused."""

    status, code, title = 415, "unsupported_media_type", "Unsupported media type"


class RangeNotSatisfiable(ApiError):
    """The asked range lies outside the file."""

    status, code, title = 416, "range_not_satisfiable", "Range not satisfiable"


class Invalid(ApiError):
    """Well-formed, but not acceptable; ``errors`` names each fault."""

    status, code, title = 422, "invalid_request", "Invalid request"


class HeadTooLarge(ApiError):
    """The request line and the headers are longer than the server reads."""

    status, code, title = 431, "head_too_large", "Request head too large"


class TooManyRequests(ApiError):
    """A limit that frees itself is reached; try again later."""

    status, code, title = 429, "rate_limited", "Too many requests"


class Unavailable(ApiError):
    """Something the request needs is away; try again later."""

    status, code, title = 503, "unavailable", "Service unavailable"


class InsufficientStorage(ApiError):
    """Too little free disk for the upload."""

    status, code, title = 507, "insufficient_storage", "Insufficient storage"
