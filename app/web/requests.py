"""Around every request: an id, and an answer even where the server itself is at fault."""

import logging
import re
import secrets

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import ApiError
from app.web.problems import render

HEADER = "X-Request-Id"
#: Where `request.state` holds headers for the answer, whatever that turns out to be.
ANSWER_HEADERS = "answer_headers"
_ACCEPTED = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)

log = logging.getLogger(__name__)


class RequestIds:
    """ASGI middleware: names each request (a proxy's `X-Request-Id` is kept) and answers unknown errors with a 500.

    The stack trace goes to the log under the request's id, never to the client.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        sent = request.headers.get(HEADER, "")
        request_id = sent if _ACCEPTED.fullmatch(sent) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_named(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers[HEADER] = request_id
                headers.update(scope["state"].get(ANSWER_HEADERS, {}))
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        except ClientDisconnect:
            log.info("request %s: the client went away", request_id)
        except Exception:
            if started:
                raise  # the server closes the connection: the client sees that the answer is cut
            log.exception("request %s failed: %s %r", request_id, scope["method"], scope["path"])
            error = ApiError("The server failed to answer; its log tells why under this request's id.")
            await render(request, error)(scope, receive, send_named)
