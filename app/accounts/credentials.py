"""From an Authorization header to who that is: an API key, or a token of the deployment's OpenID Connect issuer."""

import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from app.accounts import repository
from app.accounts.keys import hash_key, prefix_of
from app.errors import Forbidden, Unauthenticated
from app.oidc import Issuer
from app.tables.accounts import ROLES
from app.web.fields import is_storable
from app.web.services import Services

#: Where everything lives when authentication is switched off, and the first key's workspace.
DEFAULT_WORKSPACE = "default"
_TOUCH = timedelta(minutes=1)
_LONGEST_SUBJECT = 255


@dataclass(frozen=True)
class Caller:
    """Attributes:
    workspace_id: whose objects the caller sees.
    role: one of `app.tables.accounts.ROLES`.
    key_id: None for a token, and where authentication is switched off.
    subject: of a token; None for a key.
    """

    workspace_id: str
    role: str
    key_id: str | None = None
    subject: str | None = None

    def may(self, role: str) -> bool:
        """Whether this caller's role includes `role`."""
        return ROLES.index(self.role) >= ROLES.index(role)

    @property
    def name(self) -> str | None:
        """Who it is: the key's id, or ``oidc:`` and the token's subject; None where authentication is switched off."""
        return _name_of(self.subject) if self.subject is not None else self.key_id


class Suspect(NamedTuple):
    """The key whose prefix was sent by somebody who did not prove it, or no longer may use it."""

    workspace_id: str
    key_id: str


class WrongCredential(Unauthenticated):
    """A key or token was sent and is not valid."""

    def __init__(self, detail: str, *, code: str = "key_invalid", suspect: Suspect | None = None) -> None:
        super().__init__(detail, code=code, headers=_challenge(', error="invalid_token"'))
        self.suspect = suspect


class Unplaced(Forbidden):
    """A valid token that names no workspace or role of this service. `actor`: whose it is."""

    def __init__(self, detail: str, *, code: str, actor: str) -> None:
        super().__init__(detail, code=code)
        self.actor = actor


async def identify(services: Services, header: str | None) -> Caller:
    """Who sent this Authorization header.

    Raises:
        Unauthenticated: ``key_missing``; `WrongCredential` where one was sent.
        Unplaced: a valid token that names no workspace or role of this service.
        Unavailable: a token, and its issuer does not answer.
    """
    if not services.settings.auth_enabled:
        return await _anyone(services)
    if header is None:
        raise Unauthenticated(
            "Send an API key: `Authorization: Bearer mpk_...`.", code="key_missing", headers=_challenge("")
        )
    scheme, _, text = header.partition(" ")
    text = text.strip() if scheme.lower() == "bearer" else ""
    prefix = prefix_of(text)
    if prefix is not None:
        return await _by_key(services, prefix, text)
    if services.issuer is not None and text.count(".") == 2 and text.isascii():
        return await _by_token(services, services.issuer, text)
    raise WrongCredential("The Authorization header does not hold a key of this service: `Bearer mpk_...`.")


async def _by_key(services: Services, prefix: str, text: str) -> Caller:
    digest = hash_key(text, services.settings.key_pepper)
    known: Caller | None = services.proofs.get(digest)
    if known is not None:
        return known
    async with services.proofs.turn(digest):
        known = services.proofs.get(digest)
        return known if known is not None else await _proved(services, prefix, digest)


async def _proved(services: Services, prefix: str, digest: bytes) -> Caller:
    asked = time.monotonic()
    async with services.database.transaction() as session:
        key, live = await repository.key_by_prefix(session, prefix)
        proved = hmac.compare_digest(key.hash if key is not None else bytes(32), digest)
        if key is None or not proved or not live:
            suspect = Suspect(key.workspace_id, key.id) if key is not None else None
            raise WrongCredential("This key is unknown, expired or revoked.", suspect=suspect)
        if key.last_used_at is None or key.last_used_at < datetime.now(UTC) - _TOUCH:
            await repository.touch_key(session, key.id)
        caller = Caller(key.workspace_id, key.role, key.id)
    services.proofs.put(digest, caller, key.id, key.expires_at, asked)
    return caller


async def _by_token(services: Services, issuer: Issuer, text: str) -> Caller:
    try:
        claims = await issuer.claims(text)
    except Unauthenticated as error:
        raise WrongCredential(error.detail, code=error.code) from error
    subject = str(claims["sub"])
    if len(subject) > _LONGEST_SUBJECT or not is_storable(subject):
        raise WrongCredential("This token's subject is too long, or no text.", code="token_invalid")
    settings = services.settings
    name = _claim(claims, settings.oidc_workspace_claim)
    async with services.database.transaction() as session:
        storable = isinstance(name, str) and is_storable(name)
        workspace = await repository.workspace_by_name(session, str(name)) if storable else None
    if workspace is None:
        detail = f"This token's claim {settings.oidc_workspace_claim!r} names no workspace here."
        raise Unplaced(detail, code="workspace_claim_invalid", actor=_name_of(subject))
    role = _strongest(_claim(claims, settings.oidc_role_claim), settings.oidc_roles)
    if role is None:
        detail = f"This token's claim {settings.oidc_role_claim!r} gives no role here."
        raise Unplaced(detail, code="role_claim_invalid", actor=_name_of(subject))
    return Caller(workspace.id, role, subject=subject)


def _name_of(subject: str) -> str:
    return f"oidc:{subject}"


def _claim(claims: Mapping[str, Any], name: str) -> object:
    """The claim of that name, or, where there is none, at that path: ``realm_access.roles``."""
    if name in claims:
        return claims[name]
    value: object = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _strongest(value: object, mapping: Mapping[str, str]) -> str | None:
    named = value if isinstance(value, list) else [value]
    roles = [mapping.get(one) if mapping else one for one in named if isinstance(one, str)]
    return max((role for role in roles if role in ROLES), key=ROLES.index, default=None)


async def _anyone(services: Services) -> Caller:
    async with services.database.transaction() as session:
        workspace = await repository.workspace_by_name(session, DEFAULT_WORKSPACE)
        if workspace is None:
            await repository.insert_workspace(session, DEFAULT_WORKSPACE)
            workspace = await repository.workspace_by_name(session, DEFAULT_WORKSPACE)
        if workspace is None:
            raise RuntimeError("the default workspace vanished while it was made")
        return Caller(workspace.id, "operator")


def _challenge(error: str) -> dict[str, str]:
    return {"WWW-Authenticate": f'Bearer realm="modelpress"{error}'}
