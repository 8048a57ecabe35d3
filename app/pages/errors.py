"""Errors as pages, for people; programs, and everything under ``/v1``, get problem+json."""

from urllib.parse import quote

from fastapi import Request, Response

from app.accounts.caller import Caller
from app.errors import ApiError
from app.pages.view import View, path_of, redirect, root_of
from app.web import problems

#: Answers that no person reads, whatever their browser says that it takes.
_MACHINES = ("/v1/", "/static/", "/healthz", "/readyz", "/metrics", "/openapi.json")
#: What helps, by code or by status.
_HELP: dict[str | int, str] = {
    "role_too_weak": "Ask an administrator of your workspace for a key with that role, and sign in with it.",
    "cross_origin": "Open this service's own page, and try from there.",
    403: "Sign in with a key that may do this.",
    404: "It may have been deleted, or belong to another workspace than your key's.",
    409: "Go back, reload the page and look at its state now.",
    422: "Correct what is named, and try again.",
    429: "Wait a moment, then reload the page.",
    500: "Try again. If it stays so, give the request's id to whoever runs this service.",
    503: "Wait a moment, then reload the page.",
}


def show(request: Request, error: ApiError) -> Response:
    """The answer that tells `error` to whoever asks."""
    path = path_of(request)
    if path.startswith(_MACHINES) or "text/html" not in request.headers.get("accept", ""):
        return problems.render(request, error)
    if error.status == 401:
        return _to_sign_in(request)
    caller: Caller | None = getattr(request.state, "caller", None)
    page = View(request, caller).page(
        "error.html",
        status=error.status,
        error=error,
        help=_HELP.get(error.code) or _HELP.get(error.status, _HELP[500]),
        request_id=getattr(request.state, "request_id", "unknown"),
    )
    page.headers.update(error.headers)
    return page


def _to_sign_in(request: Request) -> Response:
    """To sign in, and then back.

    A browser keeps its session to itself (SameSite=Strict) when a link on another site leads here, so such a visitor
    may well be signed in: the page that is sent goes on from this site, and `sign_in_page` lets those through. Over
    plain HTTP browsers do not say where a visitor comes from.
    """
    if request.method != "GET":
        return redirect(request, "/sign-in")
    target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    path = f"/sign-in?next={quote(target, safe='')}"
    if request.headers.get("sec-fetch-site") in ("same-origin", "none"):
        return redirect(request, path)
    return View(request).page("again.html", target=root_of(request) + path)
