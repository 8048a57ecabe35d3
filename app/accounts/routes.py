"""The route class of everything under ``/v1``: one transaction per request, Idempotency-Key on every POST, audit log.

What changes something is recorded in the transaction of the change; what is forbidden is recorded when it is refused.
"""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, ClassVar

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette._utils import get_route_path
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import tracing
from app.accounts import audit
from app.accounts.caller import authenticate, is_required, prove
from app.accounts.credentials import Unplaced
from app.accounts.idempotency import HEADER, Once, Replay, fingerprint
from app.accounts.sessions import authorization
from app.errors import Forbidden
from app.web.problems import answer_to, as_api_error, render
from app.web.services import get_services

Endpoint = Callable[[Request], Awaitable[Response]]

#: Outcomes that say nothing of the operation itself, so that a repetition tries again.
_NOT_REMEMBERED = frozenset({401, 403, 408, 429})
_CHANGES_NOTHING = frozenset({"GET", "HEAD", "OPTIONS"})
#: Names of endpoints whose calls the audit log need not hold: pieces of an upload that was recorded, questions, and
#: sessions, which are nothing but a key in another place.
_UNRECORDED = frozenset({"append_upload", "estimate_job", "sign_in", "sign_out"})


class WorkspaceRoute(APIRoute):
    """Give it to a router: ``APIRouter(route_class=WorkspaceRoute)``.

    Endpoints take `app.web.services.SessionDep`; it is committed when the response is made, before it is sent, and
    rolled back on any error. A response that streams must not use it: it is closed by then.
    """

    #: Beginnings of the media types that are read as a stream, by an endpoint that holds the limit and tells what is
    #: asked for itself.
    streamed: ClassVar[tuple[str, ...]] = ()

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint inside its transaction."""
        endpoint = super().get_route_handler()
        action, protected = self.name, is_required(self.dependant)

        async def recorded(request: Request) -> Response:
            response = await endpoint(request)
            if request.method not in _CHANGES_NOTHING and action not in _UNRECORDED:
                audit.record_change(request.state.session, request, action, response)
            return response

        async def transacted(request: Request) -> Response:
            if protected:  # before FastAPI reads and parses a body, which strangers would have it do
                await authenticate(request)
            streams = request.headers.get("content-type", "").lower().startswith(self.streamed)
            if not streams:
                request = _limited(request, get_services(request).settings.max_body_bytes)
            key = request.headers.get(HEADER) if request.method == "POST" else None
            if key is None:
                return await _in_transaction(request, recorded, None)
            caller = await authenticate(request)
            once = Once(get_services(request), caller, key)
            async with once.lease():
                return await _answer_once(request, recorded, once, streams=streams)

        async def handle(request: Request) -> Response:
            try:
                return await transacted(request)
            except Unplaced:  # recorded by `authenticate`, as often as one address may
                raise
            except Forbidden as refusal:
                await audit.record_refusal(request, action, refusal.code)
                raise

        return handle


class UploadRoute(WorkspaceRoute):
    """A route that takes a file of any size as a form."""

    streamed = ("multipart/",)


class PolledRoute(APIRoute):
    """A GET that is polled. Its endpoint takes the request, the parameters of its path as texts and ``caller: Reader``.

    FastAPI documents it; `Polls` answers it: FastAPI's way to the endpoint costs more than the rest of such a request
    (docs/decisions/0016-reads-asked-together.md). It begins a transaction itself, where it needs one.
    """


class Polls:
    """ASGI middleware, around everything but `app.web.requests.RequestIds`: a `PolledRoute` is answered at once, for
    whoever has a key: the weakest role may read.

    Args:
        app: answers everything else.
        routes: matched in their order, and before all others.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[PolledRoute]) -> None:
        self._app = app
        self._routes = tuple(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http" and scope["method"] == "GET":
            path = get_route_path(scope)
            for route in self._routes:
                if match := route.path_regex.match(path):
                    scope.update(route=route, endpoint=route.endpoint, path_params=match.groupdict())
                    tracing.name_request("GET", route.path_format)
                    await (await self._answer(Request(scope, receive)))(scope, receive, send)
                    return
        await self._app(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        try:
            caller = await prove(request, authorization(request))
            response: Response = await request.scope["endpoint"](request, caller=caller, **request.path_params)
        except Exception as error:  # noqa: BLE001 (the last stop of what is known; raised again where it is not)
            return answer_to(request, error)
        return response


def get_once(request: Request) -> Once | None:
    """The Idempotency-Key of this request, if it has one."""
    once: Once | None = getattr(request.state, "once", None)
    return once


async def _answer_once(request: Request, endpoint: Endpoint, once: Once, *, streams: bool) -> Response:
    request.state.once = once
    try:
        if not streams:
            once.settle(await fingerprint(request))
        return await _in_transaction(request, endpoint, once)
    except Replay as replay:
        return replay.response
    except Exception as error:
        known = as_api_error(error)
        if known is None or known.status >= 500 or known.status in _NOT_REMEMBERED or not once.settled:
            raise
        if known.code in ("idempotency_key_reused", "request_in_progress"):
            raise
        response = render(request, known)
        async with get_services(request).database.transaction() as session:
            await once.remember(session, response)
        return response


async def _in_transaction(request: Request, endpoint: Endpoint, once: Once | None) -> Response:
    async with get_services(request).database.transaction() as session:
        request.state.session = session
        response = await endpoint(request)
        if once is not None:
            await once.remember(session, response)
        return response


def _limited(request: Request, limit: int) -> Request:
    """The same request, whose body ends with a 413 once it has more than `limit` bytes."""
    size = 0

    async def receive() -> Message:
        nonlocal size
        message = await request.receive()
        size += len(message.get("body", b""))
        if size > limit:
            # FastAPI turns any other exception of a body into a 400.
            raise HTTPException(413, f"The body may have at most {limit} bytes here (MODELPRESS_MAX_BODY_BYTES).")
        return message

    return Request(request.scope, receive)
