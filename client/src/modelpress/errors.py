"""The error tree of the client; everything it raises on purpose is a `ModelpressError`.

ModelpressError
├── ConfigurationError        no URL or key, or one that cannot be used
├── ConnectionFailed          the service was not reached, or broke off, more often than the retries allow
├── ProtocolError             the answer is not what the contract says (a proxy's page, a missing field)
├── IntegrityError            the bytes received are not the bytes that the service stores
├── ExportError               a module cannot be saved as a `.pt2` that the service reads
├── NoArtifact                the job has made nothing for that target, or not yet
├── NoModel                   a registry's version holds no file that the service reads
├── JobFailed                 a job that was to be registered has not succeeded; it is in `job`
├── WaitTimeout               the job or the check did not finish within the time given to wait()
└── ProblemError              the service refused: status, code, detail, errors
    ├── AuthenticationError 401     PermissionDenied 403      NotFound 404
    ├── Conflict 409                InvalidRequest 422        RateLimited 429
    └── ServiceError 5xx
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelpress.views import Job


class ModelpressError(Exception):
    """Root of everything that the client raises on purpose."""


class ConfigurationError(ModelpressError):
    """The client does not know where the service is, or who asks."""


class ConnectionFailed(ModelpressError):
    """The service could not be reached, or broke off, more often than the retries allow."""


class ProtocolError(ModelpressError):
    """The answer does not follow the API's contract."""


class IntegrityError(ModelpressError):
    """The bytes received differ from what the service says it stores; nothing was written."""


class ExportError(ModelpressError):
    """The module cannot be saved as a `.pt2` that answers as it does; the message says what would work."""


class NoArtifact(ModelpressError, LookupError):
    """The job has made nothing for the target that was asked for, or not yet; the message says what there is."""


class NoModel(ModelpressError):
    """A version of a registry holds no file that the service reads; the message says how to log one."""


class JobFailed(ModelpressError):
    """The job broke a limit, failed or was canceled; `job` has its error, gate and artifacts."""

    def __init__(self, job: "Job") -> None:
        why = f"{job.error.detail} [{job.error.code}]" if job.error else "no error was told"
        super().__init__(f"{job.id} {job.state}: {why}")
        self.job = job


class WaitTimeout(ModelpressError):
    """What was waited for did not finish in time."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a request body; `pointer` is an RFC 6901 JSON pointer."""

    pointer: str
    detail: str


class ProblemError(ModelpressError):
    """The service answered with RFC 9457 problem+json.

    Attributes:
        status: HTTP status.
        code: stable snake_case name of what is wrong.
        detail: one sentence: what is wrong and what would work.
        errors: for validation, each fault with its pointer into the body.
        retry_after_s: how long the service asks to wait, where it said so.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: tuple[Fault, ...] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
        self.retry_after_s = retry_after_s


class AuthenticationError(ProblemError):
    """401: no valid key."""


class PermissionDenied(ProblemError):
    """403: the key's role does not allow this."""


class NotFound(ProblemError):
    """404: no such object in this workspace."""


class Conflict(ProblemError):
    """409: the object's state forbids this now."""


class InvalidRequest(ProblemError):
    """422: well-formed, but not acceptable; see `errors`."""


class RateLimited(ProblemError):
    """429: too many requests, and the retries are used up."""


class ServiceError(ProblemError):
    """5xx: the fault is the service's."""


BY_STATUS: Mapping[int, type[ProblemError]] = {
    401: AuthenticationError,
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
    422: InvalidRequest,
    429: RateLimited,
}


def problem(status: int, body: Any, *, reason: str, retry_after_s: float | None = None) -> ProblemError:
    """The error of an answer with `status`; `body` is its parsed JSON, or None where it is not JSON."""
    cls = BY_STATUS.get(status, ServiceError if status >= 500 else ProblemError)
    data: Mapping[str, Any] = body if isinstance(body, dict) else {}
    raw = data.get("errors")
    faults = tuple(
        Fault(str(item.get("pointer", "")), str(item.get("detail", "")))
        for item in (raw if isinstance(raw, list) else [])
        if isinstance(item, dict)
    )
    code = str(data.get("code") or f"http_{status}")
    detail = str(data.get("detail") or data.get("title") or reason)
    return cls(status, code, detail, errors=faults, retry_after_s=retry_after_s)
