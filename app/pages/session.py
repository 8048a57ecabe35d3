"""``/sign-in`` and ``/sign-out``."""

from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse

from app.accounts import sessions
from app.accounts.caller import prove, recognize
from app.accounts.routes import WorkspaceRoute
from app.errors import Forbidden, TooManyRequests, Unauthenticated, Unavailable
from app.pages.view import View, redirect, root_of
from app.web.services import Services, ServicesDep

#: What the header's own message says in words of the API.
_WRONG = "This key is unknown, expired or revoked. A key begins with mpk_ and is shown once, when it is made."

router = APIRouter(route_class=WorkspaceRoute, include_in_schema=False)


@router.get("/sign-in")
async def sign_in_page(
    request: Request, services: ServicesDep, then: Annotated[str, Query(alias="next", max_length=2000)] = ""
) -> Response:
    """Asks for a key; whoever has a session goes on."""
    then = _inside(request, then)
    if not services.settings.auth_enabled or await _signed_in(request, services):
        return RedirectResponse(then, 303)
    return View(request).page("sign-in.html", then=then, error=None, told="")


@router.post("/sign-in")
async def sign_in(
    request: Request,
    services: ServicesDep,
    key: Annotated[str, Form(max_length=10_000)] = "",
    then: Annotated[str, Form(alias="next", max_length=2000)] = "",
) -> Response:
    """Proves the key, and begins a session with it."""
    if not services.settings.auth_enabled:
        return redirect(request, "/")
    sessions.require_same_origin(request)
    then, key = _inside(request, then), key.strip()
    try:
        if not key or len(key) > sessions.LONGEST_KEY:
            raise Unauthenticated("Type or paste a key: it begins with mpk_.", code="key_missing")
        await prove(request, f"Bearer {key}")
    except (Unauthenticated, Forbidden, TooManyRequests) as error:
        told = _WRONG if error.code == "key_invalid" else error.detail
        page = View(request).page("sign-in.html", status=error.status, then=then, error=error, told=told)
        page.headers.update(error.headers)
        return page
    response = RedirectResponse(then, 303)
    sessions.begin(request, response, key)
    return response


@router.post("/sign-out")
async def sign_out(request: Request) -> Response:
    """Ends this browser's session."""
    sessions.require_same_origin(request)
    response = redirect(request, "/sign-in")
    sessions.end(request, response)
    return response


async def _signed_in(request: Request, services: Services) -> bool:
    """By its cookie alone: with a header, keys could be tried here without being counted."""
    if "authorization" in request.headers:
        return False
    with suppress(Unauthenticated, Unavailable):  # its time is over; its issuer is away, and a key can still be typed
        return await recognize(services, sessions.authorization(request)) is not None
    return False


def _inside(request: Request, path: str) -> str:
    """`path`, if it is one of this service; else its first page."""
    root = root_of(request)
    local = path.startswith(f"{root}/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return path if local else f"{root}/"
