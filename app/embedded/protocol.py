"""A connection's heads of requests are bounded, in bytes and in seconds: uvicorn bounds neither.

Whoever reaches the port could otherwise send a header that has no end, which is kept, and copied with every piece that
comes; or open connections and say nothing. What is refused here has met no middleware, so it is told in words of
its own, as problem+json like everything else.
"""

import asyncio
import json
import logging
import secrets
from http import HTTPStatus
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app import logs
from app.errors import ApiError, BadRequest, HeadTooLarge, RequestTimeout
from app.web import problems
from app.web.requests import HEADER

#: Request line and headers together; also the most that may come without a head, a piece of a body or an end.
HEAD_BYTES: Final = 64 * 1024
#: How long a head may take, from the first byte or from the opening of the connection.
HEAD_S: Final = 30.0
#: A client that is still sending is listened to for so long, or it would not see the answer for the reset.
_LINGER_S: Final = 2.0

log = logging.getLogger(__name__)


class BoundedHeads(HttpToolsProtocol):
    """uvicorn's own protocol, within these bounds."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._since = 0
        self._patience: asyncio.TimerHandle | None = None
        self._over = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Waits for the first head."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._end_of_wait()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads on, as long as something comes of it."""
        if self._over:
            return
        self._since += len(data)
        super().data_received(data)
        if self._since > HEAD_BYTES:
            self.send_400_response("")

    def on_message_begin(self) -> None:
        """Waits for the head of this request, of which a first byte is there."""
        super().on_message_begin()
        self._await_head()

    def on_headers_complete(self) -> None:
        """Passes a head on, if it is not too large."""
        self._end_of_wait()
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > HEAD_BYTES:
            self._since = size
            raise ValueError("the head is too large")  # ends the parsing, and becomes an answer
        self._since = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Passes a piece on."""
        self._since = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The next head may come."""
        self._since = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls where the parser gives up."""
        if self._since > HEAD_BYTES:
            self._refuse(HeadTooLarge(f"The request line and its headers may have {HEAD_BYTES >> 10} KiB together."))
        else:
            self._refuse(BadRequest("This is not a request of HTTP/1.1."))

    def _await_head(self) -> None:
        if self._patience is None:
            self._patience = self.loop.call_later(HEAD_S, self._give_up)

    def _end_of_wait(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        if self._since:
            self._refuse(RequestTimeout(f"The head of the request has not come within {HEAD_S:g} seconds."))
        else:
            self.transport.close()

    def _refuse(self, error: ApiError) -> None:
        """Tells why, unless another answer is on its way, and hangs up."""
        self._over = True
        self._end_of_wait()
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.close()
            return
        request_id = secrets.token_hex(8)
        with logs.bound(request_id=request_id):
            log.warning("refused before anything was asked: %s", error.detail)
        body = json.dumps(problems.document(error, request_id)).encode()
        head = [
            f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}",
            f"content-type: {problems.MEDIA_TYPE}",
            f"content-length: {len(body)}",
            f"{HEADER.lower()}: {request_id}",
            "connection: close",
        ]
        self.transport.write("\r\n".join([*head, "", ""]).encode() + body)
        self.transport.write_eof()
        self.loop.call_later(_LINGER_S, self.transport.close)
