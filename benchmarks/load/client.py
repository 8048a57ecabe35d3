"""The client of `reads`: ``python -m benchmarks.load.client URL CONNECTIONS SECONDS KEY``, JSON on its output.

HTTP/1.1 with keep-alive and without pipelining over bare asyncio protocols: each connection sends its next request
when it has all of the answer. Small enough that the server, not the client, is what is measured; `busy` proves it.
"""

import asyncio
import json
import sys
import time
from typing import cast
from urllib.parse import urlsplit

import uvloop

_END = b"\r\n\r\n"


class Connection(asyncio.Protocol):
    """Sends one request after the other until it is told to stop."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._buffer = b""
        self._missing = 0
        self._sent = 0.0
        self._stopping = False
        self._transport: asyncio.Transport | None = None
        self.took: list[float] = []
        self.failures = 0
        self.over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Sends the first request."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        """Takes a piece of an answer."""
        if not self._missing:
            self._buffer += data
            head, separator, rest = self._buffer.partition(_END)
            if not separator:
                return
            self.failures += not head.startswith(b"HTTP/1.1 200")
            self._missing = _content_length(head) - len(rest)
            self._buffer = b""
        else:
            self._missing -= len(data)
        if self._missing == 0:
            self.took.append(time.perf_counter() - self._sent)
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        """The server must not end what is kept alive."""
        self.failures += not self._stopping
        if not self.over.done():
            self.over.set_result(None)

    def stop(self) -> None:
        """Asks nothing more."""
        self._stopping = True

    def _ask(self) -> None:
        if self._transport is None or self._stopping:
            if self._transport is not None:
                self._transport.close()
            return
        self._sent = time.perf_counter()
        self._transport.write(self._request)


def _content_length(head: bytes) -> int:
    start = head.lower().index(b"content-length:") + 15
    return int(head[start:].split(b"\r\n", 1)[0])


async def load(url: str, connections: int, seconds: float, key: str) -> dict[str, float]:
    """Asks for `seconds`; how many answers came, how many failed, how long they took, and how busy this process was."""
    parts = urlsplit(url)
    head = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {key}\r\n\r\n"
    loop = asyncio.get_running_loop()
    started, spent = time.perf_counter(), time.process_time()
    pairs = [
        await loop.create_connection(lambda: Connection(head.encode()), parts.hostname or "", parts.port or 80)
        for _ in range(connections)
    ]
    made = [protocol for _, protocol in pairs]
    await asyncio.sleep(seconds)
    for one in made:
        one.stop()
    await asyncio.gather(*(one.over for one in made))
    wall = time.perf_counter() - started
    took = sorted(duration for one in made for duration in one.took)
    return {
        "per_s": len(took) / wall,
        "failures": sum(one.failures for one in made),
        "p99_s": took[int(0.99 * len(took))],
        "busy": (time.process_time() - spent) / wall,
    }


if __name__ == "__main__":
    url, connections, seconds, key = sys.argv[1:]
    sys.stdout.write(json.dumps(uvloop.run(load(url, int(connections), float(seconds), key))))
