"""Rate limits that all API processes share: token buckets in the broker's Redis or Valkey, one small script each.

The script is GCRA (https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm): a bucket is one number, the time at
which it is full again, that expires by itself; the server runs one script at a time, so processes cannot take the same
token. Requests that come at once take theirs together. Where the server does not answer, requests are let through: a
service without its limits is better than none.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from app.together import Together

_SCRIPT = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local told = {}
for bucket, key in ipairs(KEYS) do
  local interval, burst, wanted = unpack(ARGV, 3 * bucket - 2, 3 * bucket)
  interval, burst, wanted = tonumber(interval), tonumber(burst), tonumber(wanted)
  -- No later than an empty bucket is full again, were the clock set back meanwhile.
  local full_at = math.min(tonumber(redis.call('GET', key) or now), now + interval * burst)
  full_at = math.max(full_at, now)
  local there = math.floor((now - full_at) / interval) + burst
  local given = math.max(0, math.min(wanted, there))
  if given > 0 then
    full_at = full_at + given * interval
    redis.call('SET', key, string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000))
  end
  local wait = math.max(0, full_at + interval - interval * burst - now)
  told[bucket] = {given, math.max(0, there - given), math.ceil(wait)}
end
return told
"""
_PATIENCE_S = 1.0
#: So long nothing is asked of a server that did not answer: requests must not wait for it one after the other.
_PAUSE_S = 5.0

log = logging.getLogger(__name__)


class Limit(NamedTuple):
    """A bucket of `burst` tokens that fills by `per_s`. `name` says what is limited."""

    name: str
    per_s: float
    burst: int

    @property
    def window_s(self) -> float:
        """How long an empty bucket takes to fill."""
        return self.burst / self.per_s


class Taken(NamedTuple):
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
        self._taken = Together(self._take)

    async def take(self, limit: Limit, who: str) -> Taken | None:
        """Takes a token out of the bucket of `who`; None where there is no limit, or nobody to ask."""
        if self._redis is None or limit.per_s <= 0 or time.monotonic() < self._away_until:
            return None
        return await self._taken((limit, who))

    async def _take(self, wanted: Sequence[tuple[Limit, str]]) -> Sequence[Taken | None]:
        """A token each, out of the bucket that each names."""
        if time.monotonic() < self._away_until:  # found out while these waited for their turn
            return [None] * len(wanted)
        buckets = Counter(wanted)
        keys = [f"modelpress:rate:{limit.name}:{who}" for limit, who in buckets]
        arguments = [(1_000_000 / limit.per_s, limit.burst, count) for (limit, _), count in buckets.items()]
        try:
            told = await self._script(keys=keys, args=list(chain.from_iterable(arguments)))
        except (RedisError, OSError) as error:
            self._away_until = time.monotonic() + _PAUSE_S
            log.warning("rates are not limited while the broker does not answer: %s", error)
            return [None] * len(wanted)
        taken = {bucket: _each(*answer) for bucket, answer in zip(buckets, told, strict=True)}
        return [next(taken[bucket]) for bucket in wanted]

    async def close(self) -> None:
        """Closes every connection."""
        if self._redis is not None:
            await self._redis.aclose()


def _each(given: int, left: int, wait_us: int) -> Iterator[Taken]:
    """What each is told who asks at once: the first ones have the tokens that are there."""
    with_token = (Taken(True, left + given - place - 1, 0.0) for place in range(given))
    return chain(with_token, repeat(Taken(False, 0, wait_us / 1_000_000)))


def _redis_url(broker_url: str) -> str:
    """What redis-py calls the server that Celery calls `broker_url`."""
    parts = urlsplit(broker_url)
    if parts.scheme != "redis+socket":
        return broker_url
    database = parse_qs(parts.query).get("virtual_host", ["0"])[0]
    return f"unix://{parts.netloc}{parts.path}?db={database}"
