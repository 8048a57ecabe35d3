"""How a page is made: templates, what each is told of its visitor, and the headers that go with it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from app.accounts.caller import Caller, require
from app.accounts.service import workspace_name
from app.pages.assets import Assets
from app.pages.formats import FILTERS
from app.web.services import SessionDep, get_services

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'{styles}; img-src 'self' data: blob:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters.update(FILTERS)


@dataclass(frozen=True)
class View:
    """What a page's endpoint renders with: it knows the request, who asks, and in which workspace."""

    request: Request
    caller: Caller | None = None
    workspace: str | None = None

    @property
    def known(self) -> Caller:
        """Who asks, of a view that a dependency gave."""
        if self.caller is None:
            raise RuntimeError("this page was made for nobody known")
        return self.caller

    def page(self, template: str, *, status: int = 200, inline_styles: bool = False, **context: Any) -> Response:
        """The page of `template`. `inline_styles`: a library of this page cannot do without (never scripts)."""
        assets: Assets = self.request.app.state.assets
        settings = get_services(self.request).settings
        root = root_of(self.request)
        html = _TEMPLATES.get_template(template).render(
            asset=partial(assets.url, root),
            caller=self.caller,
            path=path_of(self.request),
            root=root,
            signs_in=settings.auth_enabled,
            url=root.__add__,
            workspace=self.workspace,
            **context,
        )
        policy = _POLICY.format(styles=" 'unsafe-inline'" if inline_styles else "")
        return HTMLResponse(html, status, {**_HEADERS, "Content-Security-Policy": policy})


def visit(role: str) -> Callable[..., Awaitable[View]]:
    """A dependency that gives the view of a caller who has `role`; errors as of `app.accounts.caller.require`."""

    async def dependency(
        request: Request, session: SessionDep, caller: Annotated[Caller, Depends(require(role))]
    ) -> View:
        return View(request, caller, await workspace_name(session, caller.workspace_id))

    return dependency


ReaderView = Annotated[View, Depends(visit("reader"))]
MemberView = Annotated[View, Depends(visit("member"))]
AdminView = Annotated[View, Depends(visit("admin"))]


def redirect(request: Request, path: str) -> Response:
    """Sends the browser to a page of this service, with a GET."""
    return RedirectResponse(root_of(request) + path, 303, _HEADERS)


def root_of(request: Request) -> str:
    """The prefix that a proxy strips; empty without one."""
    root: str = request.scope.get("root_path", "")
    return root.rstrip("/")


def path_of(request: Request) -> str:
    """The path without that prefix."""
    path: str = request.scope["path"]
    return path.removeprefix(root_of(request)) or "/"
