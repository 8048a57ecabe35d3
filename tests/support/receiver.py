"""A receiver of webhooks: a real HTTP server on loopback that answers as it is told and keeps what it gets."""

import ssl
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from standardwebhooks import Webhook

from tests.support.loopback import Handler, answering


@dataclass(frozen=True)
class Received:
    """One request."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    def verified(self, secret: str) -> dict[str, Any]:
        """The message, if `secret` signed it."""
        message: dict[str, Any] = Webhook(secret).verify(self.body, dict(self.headers))
        return message


@dataclass
class Receiver:
    """What it got, and what it says.

    `answers` (status, headers) are used up one by one, then it is 204; while `open` is unset, nobody gets any.
    """

    port: int
    seen: list[Received] = field(default_factory=list)
    answers: deque[tuple[int, Mapping[str, str]]] = field(default_factory=deque)
    open: threading.Event = field(default_factory=threading.Event)
    asked: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"


@contextmanager
def receiving(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """A receiver that runs until the block ends."""

    class Receive(Handler):
        def do_POST(self) -> None:
            receiver.seen.append(Received(self.path, dict(self.headers), self.body()))
            receiver.asked.set()
            receiver.open.wait(20)
            status, headers = receiver.answers.popleft() if receiver.answers else (204, {})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

    with answering(Receive, tls) as port:
        receiver = Receiver(port)
        receiver.open.set()
        try:
            yield receiver
        finally:
            receiver.open.set()
