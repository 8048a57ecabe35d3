"""When to try again, and after how long."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from modelpress.errors import ProblemError

TRANSIENT_STATUS = frozenset({429, 502, 503, 504})
# Wrong requests and wrong settings, which trying again does not mend.
HOPELESS = (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.TooManyRedirects, httpx.DecodingError)


@dataclass(frozen=True, slots=True)
class Retries:
    """Exponential back-off with jitter.

    Attributes:
        attempts: how often a call is made in all.
        base_s: pause after the first failure; it doubles each time up to `cap_s`.
        patience_s: a longer `Retry-After` is not waited for but raised.
    """

    attempts: int = 5
    base_s: float = 0.3
    cap_s: float = 8.0
    patience_s: float = 60.0

    def pause(self, failures: int, retry_after_s: float | None = None) -> float | None:
        """Seconds to wait after the `failures`-th failure in a row; None: give up."""
        if failures >= self.attempts:
            return None
        if retry_after_s is not None:
            return retry_after_s if retry_after_s <= self.patience_s else None
        # Half fixed, half random: clients that failed together do not come back together.
        return min(self.cap_s, self.base_s * 2.0 ** min(failures - 1, 30)) * random.uniform(0.5, 1.0)  # noqa: S311


def transient(failure: ProblemError) -> bool:
    """The same call may well succeed in a moment."""
    return failure.status in TRANSIENT_STATUS or failure.code == "request_in_progress"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from a `Retry-After` header: a number or an HTTP date (RFC 9110, 10.2.3); None where there is none."""
    text = headers.get("Retry-After")
    if text is None:
        return None
    if text.strip().isdigit():
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    zoned = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (zoned - datetime.now(UTC)).total_seconds())
