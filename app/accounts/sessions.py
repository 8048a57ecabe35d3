"""Sessions of the web pages: the key that was signed in with, sealed in a cookie that only this service can open.

There is no table of sessions: a revoked key ends all that were begun with it, another pepper ends all there are.
Docs: docs/pages.md, docs/decisions/0017-pages.md.
"""

import base64
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from fastapi import Request, Response

from app.config import Settings
from app.errors import Forbidden, Unauthenticated
from app.web.services import get_services

COOKIE = "modelpress_session"
#: Longer ones make a cookie that browsers do not keep.
LONGEST_KEY = 2000
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def authorization(request: Request) -> str | None:
    """The Authorization header of `request`, or what stands for it in its cookie; None without both.

    Raises:
        Unauthenticated: ``session_ended``.
        Forbidden: ``cross_origin`` where another site makes a browser change something with its cookie.
    """
    header = request.headers.get("authorization")
    if header is not None:  # what programs send has no cookie to look for
        return header
    sealed = request.cookies.get(COOKIE)
    settings = get_services(request).settings
    if sealed is None or not settings.auth_enabled:
        return None
    key = _opened(settings, sealed)
    if key is None:
        raise Unauthenticated("This session has ended; sign in again with a key.", code="session_ended")
    if request.method not in _SAFE:
        require_same_origin(request)
    return f"Bearer {key}"


def require_same_origin(request: Request) -> None:
    """Raises `Forbidden` (``cross_origin``) unless a page of this service made the browser send this request."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    same = site == "same-origin" if site is not None else origin == f"{request.url.scheme}://{request.url.netloc}"
    if not same:
        detail = "A session changes things from this service's own pages alone; elsewhere, send a key in Authorization."
        raise Forbidden(detail, code="cross_origin")


def begin(request: Request, response: Response, key: str) -> None:
    """Has the browser keep a session for `key`, which was just proved."""
    settings = get_services(request).settings
    sealed = _box(settings.key_pepper.get_secret_value()).encrypt(key.encode()).decode()
    response.set_cookie(
        COOKIE,
        sealed,
        max_age=settings.session_s,
        path=_path(request),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )


def end(request: Request, response: Response) -> None:
    """Has the browser forget its session."""
    response.delete_cookie(COOKIE, path=_path(request), httponly=True, samesite="strict")


def _path(request: Request) -> str:
    return request.scope.get("root_path") or "/"


def _opened(settings: Settings, sealed: str) -> str | None:
    try:
        return _box(settings.key_pepper.get_secret_value()).decrypt(sealed, ttl=settings.session_s).decode()
    except InvalidToken:
        return None


@lru_cache(maxsize=8)
def _box(pepper: str) -> Fernet:
    derived = HKDF(SHA256(), 32, salt=None, info=b"modelpress session").derive(pepper.encode())
    return Fernet(base64.urlsafe_b64encode(derived))
