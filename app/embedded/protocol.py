"""What uvicorn leaves unbounded of a connection: the size of a request's head, requests ahead, and silence.

Whoever reaches the port could otherwise send a header that has no end, which is kept, and copied with every piece that
comes; thousands of requests in one piece; or begin something and say no more. What is refused here has met no
middleware, so it is told here, as problem+json like everything else. How many connections there are is for the system
(`ulimit`) and a proxy to bound, and clients that do not read their answers are as well.
"""

import asyncio
import logging
import secrets
from enum import Enum, auto
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app import logs
from app.errors import ApiError, BadRequest, HeadTooLarge, RequestTimeout
from app.web import problems
from app.web.requests import HEADER

#: Request line and headers with all that is between them; also the most that may come and begin or end nothing.
HEAD_BYTES: Final = 64 * 1024
#: Headers of a request, and trailers: each costs more than its bytes.
HEADERS: Final = 256
#: How long a head may take from its first byte, and a connection without a request. Also the rest of a body that
#: nobody reads, since its request was answered before it was there.
HEAD_S: Final = 30.0
#: How long a body may stand still.
BODY_S: Final = 60.0
#: Requests that wait for the answers to those before them.
AHEAD: Final = 16
#: A client that is still sending is listened to for so long, or it would not see the answer for the reset.
_LINGER_S: Final = 2.0

log = logging.getLogger(__name__)


class _Refused(Exception):
    """Ends the parser's work from within a callback; the connection knows why."""


class _Place(Enum):
    """Where in the stream of requests the connection is."""

    BETWEEN = auto()
    HEAD = auto()
    BODY = auto()


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's own protocol, within these bounds."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._place = _Place.BETWEEN
        #: Bytes that have come since a head, a piece of a body or a request was complete.
        self._since = 0
        self._moving = False
        self._patience: asyncio.TimerHandle | None = None
        #: Requests whose answers were not whole when the last of them came, in their order.
        self._owed: list[RequestResponseCycle] = []
        self._why: ApiError | None = None
        self._over = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Waits for the first head."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells the applications: uvicorn tells that of the last request."""
        self._stop_waiting()
        for cycle in self._unanswered():
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads on, as long as something comes of it."""
        if self._over:
            return
        self._since += len(data)
        super().data_received(data)
        if self._since > HEAD_BYTES:
            self._refuse(_too_large())
        elif self._place is not _Place.BETWEEN or not self._unanswered():
            self._wait()  # also for bytes that began no request: uvicorn has ended its own wait for them

    def on_message_begin(self) -> None:
        """A head begins, and has all its time."""
        super().on_message_begin()
        self._place = _Place.HEAD
        self._stop_waiting()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keeps it, if there are not too many."""
        if len(self.headers) >= HEADERS:
            raise self._refused(_too_large())
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Passes a head on, if it is within the bounds."""
        self._stop_waiting()
        if self._head_bytes() > HEAD_BYTES:
            raise self._refused(_too_large())
        if len(self._unanswered()) > AHEAD:
            raise self._refused(BadRequest(f"No more than {AHEAD} requests can wait for the answers before theirs."))
        if self.parser.should_upgrade() and self._announces_a_body():
            # The parser ends with the head then, and would take the body for the next request.
            raise self._refused(BadRequest("This server speaks HTTP/1.1 alone: send the body without `Upgrade`."))
        super().on_headers_complete()
        self._since, self._place = 0, _Place.BODY
        self._owed = [*self._unanswered(), self.cycle]

    def on_body(self, body: bytes) -> None:
        """Passes a piece on."""
        self._since, self._moving = 0, True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The next head may come."""
        self._since, self._place = 0, _Place.BETWEEN
        self._stop_waiting()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """What has begun meanwhile has its time from now: uvicorn takes the connection for one without a request."""
        super().on_response_complete()
        if self._place is not _Place.BETWEEN and not self._unanswered():
            self._unset_keepalive_if_required()
            self._stop_waiting()
            self._wait()

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls where the parser gives up."""
        self._refuse(self._why or BadRequest("This is not a well-formed request of HTTP/1.1."))

    def _unsupported_upgrade_warning(self) -> None:
        """No line for what any client may ask, and less one that names libraries to install."""

    def _unanswered(self) -> list[RequestResponseCycle]:
        return [cycle for cycle in self._owed if not cycle.response_complete]

    def _head_bytes(self) -> int:
        """As it was sent, but for spaces around values."""
        line = len(self.parser.get_method()) + len(self.url) + len("  HTTP/1.1\r\n")
        return line + sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers) + len("\r\n")

    def _announces_a_body(self) -> bool:
        return any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0")
            for name, value in self.headers
        )

    def _wait(self) -> None:
        if self._patience is None and not self._over:
            read = self._place is _Place.BODY and self._unanswered()
            self._patience = self.loop.call_later(BODY_S if read else HEAD_S, self._give_up)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        self._patience = None
        moving, self._moving = self._moving, False
        if self.flow.read_paused:  # it is not the client who takes so long
            self._wait()
        elif self._unanswered():
            if self._place is _Place.BODY and not moving:
                self._refuse(RequestTimeout(f"Nothing of the body has come for {BODY_S:g} seconds."))
            else:
                self._wait()
        elif self._place is _Place.HEAD:
            self._refuse(RequestTimeout(f"The head of the request has not come within {HEAD_S:g} seconds."))
        else:
            self.transport.close()

    def _refused(self, why: ApiError) -> _Refused:
        self._why = why
        return _Refused(why.detail)

    def _refuse(self, error: ApiError) -> None:
        """Hangs up, and tells why where the client cannot take it for the answer to another request."""
        if self._over or self.transport.is_closing():
            return
        self._over = True
        self._stop_waiting()
        request_id = secrets.token_hex(8)
        with logs.bound(request_id=request_id):
            log.warning("hung up on %s: %s", self.client[0] if self.client else "a client", error.detail)
        if self._unanswered() or self._place is _Place.BODY:
            self.transport.close()
            return
        self.transport.write(self._answer(error, request_id))
        self.transport.write_eof()
        self.loop.call_later(_LINGER_S, self.transport.abort)

    def _answer(self, error: ApiError, request_id: str) -> bytes:
        told = problems.response(error, request_id)
        own = [(HEADER.lower().encode(), request_id.encode()), (b"connection", b"close")]
        headers = [*self.server_state.default_headers, *told.raw_headers, *own]
        lines = [name + b": " + value + b"\r\n" for name, value in headers]
        return b"".join([STATUS_LINE[error.status], *lines, b"\r\n", bytes(told.body)])


def _too_large() -> HeadTooLarge:
    return HeadTooLarge(
        f"A request may have {HEADERS} headers, and {HEAD_BYTES >> 10} KiB with its line and all of them."
    )
