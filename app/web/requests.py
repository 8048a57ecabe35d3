"""Around every request: an id, a line in the log, its figures, and an answer even where the server is at fault."""

import logging
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import instruments, logs
from app.errors import ApiError
from app.web.problems import answer

HEADER = "X-Request-Id"
_HEADER = HEADER.lower().encode()
#: Where `request.state` holds headers for the answer, whatever that turns out to be.
ANSWER_HEADERS = "answer_headers"
#: Asked all day by machines: these are in the log only at level debug.
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
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
        sent = next((value for name, value in scope["headers"] if name == _HEADER), b"").decode("latin-1")
        request_id = sent if _ACCEPTED.fullmatch(sent) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        seen = _Seen(scope, receive, send, request_id)
        with logs.bound(request_id=request_id):
            try:
                await self._app(scope, seen.receive, seen.send)
            except ClientDisconnect:
                seen.gone = True
            except Exception:
                if seen.status:
                    raise  # the server closes the connection: the client sees that the answer is cut
                log.exception("request %s failed: %s %s", request_id, scope["method"], quote(scope["path"]))
                error = ApiError("The server failed to answer; its log tells why under this request's id.")
                await answer(Request(scope), error)(scope, seen.receive, seen.send)
            finally:
                seen.end()


class _Seen:
    """One request as it goes by: counted, and told to the log at its end."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        self._scope, self._receive, self._send, self._id = scope, receive, send, request_id
        self._started = time.perf_counter()
        self._answered: float | None = None
        self._received = self._sent = 0
        self._route = ""
        self.status = 0
        self.gone = False

    async def receive(self) -> Message:
        """What the client sends."""
        message = await self._receive()
        size = len(message.get("body", b""))
        if size:
            self._received += size
            instruments.RECEIVED_OF(route_of(self._scope)).inc(size)
        return message

    async def send(self, message: Message) -> None:
        """What the client is sent; the first message gets the request's id."""
        if message["type"] == "http.response.start":
            self.status, self._answered = message["status"], time.perf_counter()
            self._route = route_of(self._scope)
            more = {HEADER: self._id, **self._scope["state"].get(ANSWER_HEADERS, {})}
            encoded = [(name.lower().encode(), value.encode()) for name, value in more.items()]
            message["headers"] = [*message.get("headers", ()), *encoded]
        await self._send(message)
        size = len(message.get("body", b""))
        if size:
            self._sent += size
            instruments.SENT_OF(self._route).inc(size)

    def end(self) -> None:
        """Counts the request, and writes its line; status 499 where the client went away before an answer."""
        scope, now = self._scope, time.perf_counter()
        method, route = instruments.method_of(scope), self._route or route_of(scope)
        status = self.status or (499 if self.gone else 500)
        instruments.REQUESTS_OF(method, route, str(status)).inc()
        if self._answered is not None:
            instruments.LATENCY_OF(method, route).observe(self._answered - self._started)
        path, duration = quote(scope["path"]), round(now - self._started, 6)
        level = logging.DEBUG if route in PROBES and status < 400 else logging.INFO
        log.log(
            level,
            "%s %s %d in %.3f s",
            method,
            path,
            status,
            duration,
            extra={
                "fields": {
                    "method": method,
                    "route": route,
                    "path": path,
                    "status": status,
                    "duration_s": duration,
                    "received_bytes": self._received,
                    "sent_bytes": self._sent,
                    "job_id": scope.get("path_params", {}).get("job_id"),
                }
            },
        )


def route_of(scope: Mapping[str, Any]) -> str:
    """The template of the path, such as ``/v1/jobs/{job_id}``: one of few; ``unknown`` for what does not exist."""
    templates: dict[int, str] = scope["app"].state.templates
    found = templates.get(id(scope.get("route")))
    if found is None:  # Starlette's own routes, such as /openapi.json, do not say that they were chosen
        found = scope["path"] if scope["path"] in templates.values() else instruments.UNKNOWN
    return found


def install(app: FastAPI) -> None:
    """Puts the middleware around `app`, all of whose routes are there already."""
    routes = iter_route_contexts(app.routes)
    app.state.templates = {id(one.original_route): one.path_format for one in routes if one.path_format}
    app.add_middleware(RequestIds)
