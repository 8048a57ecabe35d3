"""Rate limits that all API processes share: token buckets in the broker's Redis or Valkey, one small script each.

The script is GCRA (https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm): a bucket is one number, the time at
which it is full again, that expires by itself; the server runs one script at a time, so processes cannot take the same
token. Where it does not answer, requests are let through: a service without its limits is better than none.
"""

import logging
import time
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

_SCRIPT = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local full_at = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now) + interval
local wait = full_at - interval * burst - now
if wait > 0 then return {0, 0, math.ceil(wait)} end
redis.call('SET', KEYS[1], string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000))
return {1, math.floor(-wait / interval), 0}
"""
_PATIENCE_S = 1.0
#: So long nothing is asked of a server that did not answer: requests must not wait for it one after the other.
_PAUSE_S = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limit:
    """A bucket of `burst` tokens that fills by `per_s`. `name` says what is limited."""

    name: str
    per_s: float
    burst: int

    @property
    def window_s(self) -> float:
        """How long an empty bucket takes to fill."""
        return self.burst / self.per_s


@dataclass(frozen=True)
class Taken:
    """The answer of a bucket: whether a token was there, how many are left, and seconds until the next one."""

    allowed: bool
    remaining: int
    wait_s: float


class Rates:
    """The buckets of a deployment, in the server that `broker_url` (as Celery takes it) names."""

    def __init__(self, broker_url: str) -> None:
        self._away_until = 0.0
        self._redis: Redis | None = None
        try:
            self._redis = Redis.from_url(
                _redis_url(broker_url),
                retry=Retry(NoBackoff(), 0),
                socket_timeout=_PATIENCE_S,
                socket_connect_timeout=_PATIENCE_S,
            )
        except ValueError as error:  # of another kind than redis:// and the like, which Celery may know
            log.warning("rates are not limited with this broker: %s", error)
            return
        self._script = self._redis.register_script(_SCRIPT)

    async def take(self, limit: Limit, who: str) -> Taken | None:
        """Takes a token out of the bucket of `who`; None where there is no limit, or nobody to ask."""
        if self._redis is None or limit.per_s <= 0 or time.monotonic() < self._away_until:
            return None
        try:
            answer = await self._script(
                keys=[f"modelpress:rate:{limit.name}:{who}"], args=[1_000_000 / limit.per_s, limit.burst]
            )
        except (RedisError, OSError) as error:
            self._away_until = time.monotonic() + _PAUSE_S
            log.warning("rates are not limited while the broker does not answer: %s", error)
            return None
        allowed, remaining, wait_us = answer
        return Taken(bool(allowed), int(remaining), int(wait_us) / 1_000_000)

    async def close(self) -> None:
        """Closes every connection."""
        if self._redis is not None:
            await self._redis.aclose()


def _redis_url(broker_url: str) -> str:
    """What redis-py calls the server that Celery calls `broker_url`."""
    parts = urlsplit(broker_url)
    if parts.scheme != "redis+socket":
        return broker_url
    database = parse_qs(parts.query).get("virtual_host", ["0"])[0]
    return f"unix://{parts.netloc}{parts.path}?db={database}"
