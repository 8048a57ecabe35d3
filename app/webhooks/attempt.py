"""One attempt to deliver: a signed POST, what came of it, and when to try again."""

import asyncio
import logging
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpcore2

from app.config import Settings
from app.tables.base import Json
from app.web.openapi import VERSION
from app.webhooks.addresses import NO_TLS
from app.webhooks.network import AddressRefused, CheckedBackend, Resolve, look_up

#: A receiver that asks for a longer pause is asked again after this one, in seconds.
_LONGEST_WISH_S = 86_400.0
#: Added to a pause by chance, so that what failed together is not repeated together.
_JITTER = 0.1
GONE = 410
_FIXED_HEADERS = {
    "Content-Type": "application/json",
    "User-Agent": f"Modelpress/{VERSION}",
    "Connection": "close",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What came of an attempt.

    Attributes:
        error: None where the receiver took the message.
        status: the HTTP status, where there was one.
        wish_s: the pause that the receiver asked for (``Retry-After``), in seconds.
    """

    error: Json | None
    status: int | None = None
    duration_ms: int = 0
    wish_s: float | None = None

    @property
    def final(self) -> bool:
        """Whether trying again is of no use."""
        return self.error is None or self.status == GONE or self.error["code"] == "webhook_disabled"


DISABLED = Outcome({"code": "webhook_disabled", "detail": "the webhook was switched off"})


class Poster:
    """Posts to receivers: no proxy, no redirect, no connection kept, no byte of the answer's body read."""

    def __init__(self, settings: Settings, slots: int, resolve: Resolve = look_up) -> None:
        self._timeout_s = settings.webhook_timeout_s
        self._allow_http = settings.webhook_allow_http
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=httpcore2.default_ssl_context(),
            max_connections=slots,
            max_keepalive_connections=0,
            network_backend=CheckedBackend(settings.webhook_allowed_networks, resolve),
        )

    async def post(self, url: str, headers: Mapping[str, str], body: str) -> Outcome:
        """Sends one message. Never fails: the outcome says what went wrong."""
        started = time.monotonic()
        # httpcore's own Host lacks the brackets of an IPv6 address.
        all_headers = {"Host": urlsplit(url).netloc, **_FIXED_HEADERS, **headers}
        outcome = await self._post(url, all_headers, body.encode())
        return Outcome(outcome.error, outcome.status, round(1000 * (time.monotonic() - started)), outcome.wish_s)

    async def close(self) -> None:
        """Closes every connection."""
        await self._pool.aclose()

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        if not (self._allow_http or url.startswith("https://")):  # allowed when the webhook was made, now no more
            return _failed("webhook_url_not_allowed", f"the URL {NO_TLS}")
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._pool.stream("POST", url, headers=[*headers.items()], content=body) as response,
            ):
                return _judge(response)
        except TimeoutError:
            return _failed("webhook_timeout", f"no answer within {self._timeout_s:g} s")
        except AddressRefused as error:
            return _failed("webhook_url_not_allowed", str(error))
        except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError) as error:
            return _failed("webhook_unreachable", str(error) or type(error).__name__)
        except Exception:
            log.exception("a webhook could not be sent to %s", url)
            return _failed("webhook_unreachable", "the message could not be sent; the server's log tells why")


def pause_after(outcome: Outcome, attempt: int, schedule_s: Sequence[float]) -> float | None:
    """Seconds until the next try after try `attempt` (from 1) of a schedule; None: there is none."""
    if outcome.final or attempt > len(schedule_s):
        return None
    pause_s = schedule_s[attempt - 1] * (1 + _JITTER * random.random())  # noqa: S311 - no secret
    return max(pause_s, min(outcome.wish_s or 0.0, _LONGEST_WISH_S))


def _judge(response: httpcore2.Response) -> Outcome:
    status = response.status
    if 200 <= status < 300:
        return Outcome(None, status)
    detail = f"the receiver answered {status}"
    if 300 <= status < 400:
        detail += "; redirects are not followed: register the address that it names"
    headers = {name.lower(): value for name, value in response.headers}
    return Outcome(
        {"code": "webhook_refused", "detail": detail}, status, wish_s=_wish(headers.get(b"retry-after", b""))
    )


def _wish(retry_after: bytes) -> float | None:
    """Seconds of a ``Retry-After`` header: a number, or a date."""
    text = retry_after.decode("latin-1").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return max((at - datetime.now(UTC)) / timedelta(seconds=1), 0.0)


def _failed(code: str, detail: str) -> Outcome:
    return Outcome({"code": code, "detail": detail})
