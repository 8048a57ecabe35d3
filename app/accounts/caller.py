"""Who is asking, whether it may ask now, and what its role allows."""

import ipaddress
import math
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant
from fastapi.security import HTTPBearer

from app import logs
from app.accounts import audit, sessions
from app.accounts.credentials import Caller, Unplaced, WrongCredential, identify
from app.config import Settings
from app.errors import Forbidden, TooManyRequests, Unauthenticated
from app.rates import Limit, Taken
from app.web.requests import ANSWER_HEADERS
from app.web.services import Services, get_services

__all__ = [
    "Admin",
    "Caller",
    "Member",
    "Operator",
    "Reader",
    "authenticate",
    "prove",
    "rate_limit",
    "recognize",
    "require",
]

#: For OpenAPI alone; the header is read by `authenticate`.
_ABOUT = "An API key: `mpk_...`; or a token of the deployment's OpenID Connect issuer, where there is one."
_ACTION = "authenticate"
_SCHEME = HTTPBearer(auto_error=False, scheme_name="ApiKey", description=_ABOUT)


async def authenticate(request: Request) -> Caller:
    """The caller of `request`, by its header or its session; found, and counted against its rate, once per request.

    Raises:
        Unauthenticated, Unplaced: see `app.accounts.credentials.identify` and `app.accounts.sessions.authorization`.
        TooManyRequests: ``rate_limited``; ``too_many_failures`` for an address that sends what nobody is let in with.
    """
    known: Caller | None = getattr(request.state, "caller", None)
    if known is None:
        known = await prove(request, sessions.authorization(request))
    return known


async def prove(request: Request, header: str | None) -> Caller:
    """The caller who sends `header` with `request`; a wrong one is counted and recorded. Raises as `authenticate`."""
    services = get_services(request)
    try:
        caller = await identify(services, header)
    except WrongCredential as refusal:
        await _count_failure(services, request)
        await audit.record_refusal(request, _ACTION, refusal.code, suspect=refusal.suspect)
        raise
    except Unplaced as refusal:
        await _count_failure(services, request)
        await audit.record_refusal(request, _ACTION, refusal.code, actor=refusal.actor)
        raise
    await _count(services, request, caller)
    request.state.caller = caller
    logs.bind(workspace_id=caller.workspace_id)
    return caller


async def recognize(services: Services, header: str | None) -> Caller | None:
    """Who would be let in with this Authorization header now; None: nobody.

    For answers that outlast a key: neither counted against its rate nor recorded as a refusal. The key is in use still.

    Raises:
        Unavailable: a token, and its issuer does not answer.
    """
    try:
        return await identify(services, header)
    except (Unauthenticated, Forbidden):
        return None


def require(role: str) -> Callable[..., Awaitable[Caller]]:
    """A dependency that gives the caller, and answers 403 where its role is weaker than `role`."""

    async def dependency(request: Request, _: Annotated[object, Depends(_SCHEME)]) -> Caller:
        caller = await authenticate(request)
        if not caller.may(role):
            raise Forbidden(f"This needs a key with the role {role}; yours is {caller.role}.", code="role_too_weak")
        return caller

    return dependency


def is_required(dependant: Dependant) -> bool:
    """Whether a route with these dependencies answers nobody but known callers."""
    return any(one.call is _SCHEME or is_required(one) for one in dependant.dependencies)


Reader = Annotated[Caller, Depends(require("reader"))]
Member = Annotated[Caller, Depends(require("member"))]
Admin = Annotated[Caller, Depends(require("admin"))]
Operator = Annotated[Caller, Depends(require("operator"))]


def rate_limit(settings: Settings) -> Limit:
    """What one key may ask."""
    return Limit("key", settings.rate_limit_per_s, settings.rate_limit_burst)


async def _count(services: Services, request: Request, caller: Caller) -> None:
    if caller.name is None:
        return
    limit = rate_limit(services.settings)
    taken = await services.rates.take(limit, caller.name)
    if taken is None:
        return
    setattr(request.state, ANSWER_HEADERS, _headers(limit, taken))
    if not taken.allowed:
        raise TooManyRequests(
            f"This key may make {limit.per_s:g} requests per second, {limit.burst} at once.", headers=_wait(taken)
        )


async def _count_failure(services: Services, request: Request) -> None:
    """Past the limit the refusal becomes a 429, which is not recorded either: a flood must not fill the audit log.

    Valid keys from the same address still pass: behind one address there may be a whole company.
    """
    failures = services.settings.auth_failures_per_min
    limit = Limit("failures", failures / 60, max(failures, 1))
    taken = await services.rates.take(limit, _network(audit.address_of(request) or "unknown"))
    if taken is not None and not taken.allowed:
        detail = f"From this address or its network, {failures} wrong keys or tokens were sent within a minute."
        raise TooManyRequests(detail, code="too_many_failures", headers=_wait(taken))


def _network(address: str) -> str:
    """Whose failures count together: an IPv4 address's, or those of an IPv6 address's /64, which one customer gets."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return address
    if not isinstance(known, ipaddress.IPv6Address):
        return address
    if known.ipv4_mapped is not None:
        return str(known.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(known), 64), strict=False))


def _headers(limit: Limit, taken: Taken) -> dict[str, str]:
    """RateLimit header fields (draft-ietf-httpapi-ratelimit-headers)."""
    refill_s = math.ceil((limit.burst - taken.remaining) / limit.per_s)
    return {
        "RateLimit-Policy": f'"{limit.name}";q={limit.burst};w={math.ceil(limit.window_s)}',
        "RateLimit": f'"{limit.name}";r={taken.remaining};t={refill_s}',
    }


def _wait(taken: Taken) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(taken.wait_s)))}
