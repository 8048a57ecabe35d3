"""Tokens of an OpenID Connect issuer beside API keys: its keys are discovered and cached, every token is verified.

Only signatures by asymmetric keys of the issuer count, and a key counts only with an algorithm of its own kind: an
unsigned token, or one signed with a public key as if it were a shared secret, is refused. Needs the extra ``oidc``.
"""

import asyncio
import ipaddress
import logging
import time
import warnings
from typing import Any
from urllib.parse import urlsplit

from app.config import Settings
from app.errors import Unauthenticated, Unavailable

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
#: Keys are fetched again after so long; at most as often as `REFETCH_S`; and are used for so long without an answer.
FRESH_S, REFETCH_S, STALE_S = 3600.0, 30.0, 86_400.0
_PATIENCE_S = 5.0

log = logging.getLogger(__name__)


class _UnusableIssuerError(Exception):
    """The issuer does not answer, or not as OpenID Connect Discovery says."""


def open_issuer(settings: Settings) -> "Issuer | None":
    """The issuer of the settings. Raises ValueError where they, or the extra ``oidc``, are incomplete."""
    if not settings.oidc_issuer:
        return None
    if not settings.oidc_audience:
        raise ValueError("MODELPRESS_OIDC_AUDIENCE is not set; without it tokens for other services would be taken")
    if not _is_private(settings.oidc_issuer):
        raise ValueError("MODELPRESS_OIDC_ISSUER must be an https:// address")
    try:
        import httpx  # noqa: F401, PLC0415 (optional)
        import joserfc  # noqa: F401, PLC0415 (optional)
    except ImportError as error:
        raise ValueError("MODELPRESS_OIDC_ISSUER needs the extra: pip install 'modelpress-server[oidc]'") from error
    return Issuer(settings.oidc_issuer, settings.oidc_audience, settings.oidc_leeway_s)


class Issuer:
    """Verifies tokens of one issuer for one audience; of one process, which caches the keys."""

    def __init__(self, issuer: str, audience: str, leeway_s: int) -> None:
        self._issuer = issuer
        self._audience = audience
        self._leeway_s = leeway_s
        self._lock = asyncio.Lock()
        self._keys: dict[str | None, Any] = {}
        self._fetched = self._tried = -STALE_S

    async def claims(self, token: str) -> dict[str, Any]:
        """The claims of a token that is valid now.

        Raises:
            Unauthenticated: it is not.
            Unavailable: the issuer's keys cannot be had.
        """
        from joserfc import errors, jws, jwt  # noqa: PLC0415 (optional)

        registry = jws.JWSRegistry(algorithms=list(ALGORITHMS), strict_check_header=False)
        checks = jwt.JWTClaimsRegistry(
            leeway=self._leeway_s,
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": self._audience},
            exp={"essential": True},
            sub={"essential": True},
        )
        try:
            header = jws.extract_compact(token.encode()).headers()
            if header.get("alg") not in ALGORITHMS:
                raise _refused(f"it is signed with {header.get('alg')!r}, which is not allowed")
            key = await self._key(header.get("kid"))
            with warnings.catch_warnings():
                # Issuers go on to say EdDSA where RFC 9864 says Ed25519; it means the same.
                warnings.simplefilter("ignore", errors.SecurityWarning)
                decoded = jwt.decode(token, key, registry=registry)
            checks.validate(decoded.claims)
        except errors.JoseError as error:
            raise _refused(str(error)) from error
        except (ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError) as error:
            # What strangers send need not be made of the types that the library expects.
            raise _refused("it cannot be read") from error
        return dict(decoded.claims)

    async def _key(self, kid: object) -> Any:
        async with self._lock:
            if self._age() > FRESH_S:
                await self._refresh()
            if self._age() > STALE_S:
                raise Unavailable("The issuer of tokens does not answer; use a key.", code="issuer_unavailable")
            key = self._find(kid)
            if key is None:
                await self._refresh()
                key = self._find(kid)
            if key is None:
                raise _refused("its issuer has no key of that kid")
            return key

    def _find(self, kid: object) -> Any:
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid) if isinstance(kid, str) else None

    def _age(self) -> float:
        return time.monotonic() - self._fetched

    async def _refresh(self) -> None:
        """Fetches the keys, unless that was just tried; what cannot be fetched leaves the old ones."""
        if time.monotonic() - self._tried < REFETCH_S:
            return
        self._tried = time.monotonic()
        try:
            self._keys = _verifying_keys(await self._jwks())
        except _UnusableIssuerError as error:
            log.warning("the keys of %s were not fetched: %s", self._issuer, error)
            return
        self._fetched = time.monotonic()

    async def _jwks(self) -> object:
        import httpx  # noqa: PLC0415 (optional)

        try:
            async with httpx.AsyncClient(timeout=_PATIENCE_S, follow_redirects=False) as client:
                known = await client.get(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
                about = known.raise_for_status().json()
                if not isinstance(about, dict) or about.get("issuer") != self._issuer:
                    raise _UnusableIssuerError("it calls itself by another name")
                if not _is_private(str(about.get("jwks_uri"))):
                    raise _UnusableIssuerError("its jwks_uri is not an https:// address")
                answer = await client.get(str(about["jwks_uri"]))
                return answer.raise_for_status().json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise _UnusableIssuerError(str(error) or type(error).__name__) from error


def _verifying_keys(jwks: object) -> dict[str | None, Any]:
    """kid -> public key, of those that sign; a shared secret is never one."""
    from joserfc import errors, jwk  # noqa: PLC0415 (optional)

    keys: dict[str | None, Any] = {}
    listed = jwks.get("keys") if isinstance(jwks, dict) else None
    for data in listed if isinstance(listed, list) else []:
        if not isinstance(data, dict) or data.get("kty") == "oct" or data.get("use", "sig") != "sig":
            continue
        try:
            keys[data.get("kid")] = jwk.import_key(data)
        except (errors.JoseError, ValueError, TypeError, KeyError) as error:
            log.warning("a key of the issuer cannot be read: %s", error)
    return keys


def _is_private(url: str) -> bool:
    """Whether nobody on the way can change what `url` answers: https, or http on this machine."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        return True
    try:
        return parts.scheme == "http" and ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def _refused(why: str) -> Unauthenticated:
    # The reason may quote the token, and with it what is no Unicode text.
    printable = why.encode("ascii", "backslashreplace").decode()
    return Unauthenticated(f"This token is not valid: {printable}.", code="token_invalid")
