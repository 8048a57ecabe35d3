"""A real server, to which raw bytes are sent: heads of requests are bounded, what is within the bounds is served."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from app.embedded import protocol
from app.embedded.protocol import HEAD_BYTES
from app.embedded.serve import http_config

Address = tuple[str, int]


async def _count(request: Request) -> PlainTextResponse:
    """How many bytes of headers and of body there were."""
    heads = sum(len(name) + len(value) for name, value in request.headers.raw)
    return PlainTextResponse(f"{heads} {len(await request.body())}")


@contextmanager
def _serving() -> Iterator[Address]:
    app = Starlette(routes=[Route("/", _count, methods=["GET", "POST"])])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(http_config(app, ""))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def address() -> Iterator[Address]:
    with _serving() as found:
        yield found


def _answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of all that comes until the server hangs up."""
    received = b""
    while piece := connection.recv(65536):
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return int(status.split()[1]), dict(line.lower().split(": ", 1) for line in lines), body


def _sent(address: Address, *pieces: bytes) -> tuple[int, dict[str, str], bytes]:
    with socket.create_connection(address, timeout=30) as connection:
        for piece in pieces:
            connection.sendall(piece)
        return _answer(connection)


def _problem(answer: tuple[int, dict[str, str], bytes]) -> dict[str, Any]:
    """The problem of an answer, which says the same in its head."""
    status, headers, body = answer
    assert headers["content-type"] == "application/problem+json"
    assert headers["content-length"] == str(len(body))
    told: dict[str, Any] = json.loads(body)
    assert told["status"] == status
    assert told["instance"] == f"urn:modelpress:request:{headers['x-request-id']}"
    return told


def _padded(size: int, *lines: str) -> bytes:
    """A request whose path, names and values of headers have `size` bytes together."""
    plain = sum(len(line.replace(": ", "")) for line in lines) + len("/") + len("Pad")
    head = ["GET / HTTP/1.1", *lines, f"Pad: {'x' * (size - plain)}", "", ""]
    return "\r\n".join(head).encode()


def test_a_head_as_large_as_can_be(address: Address) -> None:
    status, _, body = _sent(address, _padded(HEAD_BYTES, "Host: x", "Connection: close"))
    assert (status, body) == (200, f"{HEAD_BYTES - 1} 0".encode())


def test_a_head_that_is_too_large(address: Address) -> None:
    told = _problem(_sent(address, _padded(HEAD_BYTES + 1, "Host: x", "Connection: close")))
    assert (told["status"], told["code"]) == (431, "head_too_large")
    assert "64 KiB" in told["detail"]


@pytest.mark.parametrize(
    ("beginning", "piece"),
    [
        (b"GET / HTTP/1.1\r\nX: ", b"x"),
        (b"GET / HTTP/1.1\r\n", b"a: b\r\n"),
        (b"GET /", b"x"),
        (b"", b"\r\n"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: ", b"x"),
    ],
    ids=["header", "headers", "path", "lines", "chunked"],
)
def test_a_head_without_an_end_is_refused_before_it_is_large(address: Address, beginning: bytes, piece: bytes) -> None:
    """The client is told, although it is still sending."""
    before = psutil.Process().memory_info().rss
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(beginning)
        for _ in range(100):
            connection.sendall(piece * (18_000 // len(piece)))
        assert _problem(_answer(connection))["code"] == "head_too_large"
    assert psutil.Process().memory_info().rss - before < 16 << 20


def test_trailers_without_an_end_hang_up(address: Address) -> None:
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            for _ in range(10_000):
                connection.sendall(b"a: b\r\n" * 3000)


def test_bodies_are_as_long_as_they_like_and_requests_as_many(address: Address) -> None:
    whole = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3_000_000
    chunked = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunked += b"1;name=value\r\nx\r\n" * 30_000 + b"0\r\nTrailer: y\r\n\r\n"
    with socket.create_connection(address, timeout=30) as connection:
        for _ in range(3):
            connection.sendall(whole)
            assert connection.recv(65536).endswith(b" 3000000")
        connection.sendall(chunked)
        status, _, body = _answer(connection)
    assert (status, body.split()[1]) == (200, b"30000")


@pytest.mark.parametrize("junk", [b"\x16\x03\x01\x02\x00\x01\xfc\x03\x03", b"GET / FTP/9\r\n\r\n", b"no\r\n\r\n"])
def test_what_is_not_http(address: Address, junk: bytes) -> None:
    told = _problem(_sent(address, junk))
    assert (told["status"], told["code"]) == (400, "bad_request")


@pytest.mark.parametrize("first", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_a_head_that_does_not_come_to_its_end(monkeypatch: pytest.MonkeyPatch, first: bytes) -> None:
    monkeypatch.setattr(protocol, "HEAD_S", 0.3)
    with _serving() as address, socket.create_connection(address, timeout=30) as connection:
        if first:
            connection.sendall(first)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET / HTTP/1.1\r\nHo")
        assert _problem(_answer(connection))["code"] == "request_timeout"


def test_a_connection_that_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_S", 0.3)
    with _serving() as address, socket.create_connection(address, timeout=30) as connection:
        assert connection.recv(1) == b""


def test_only_heads_have_so_little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_S", 0.3)
    with _serving() as address, socket.create_connection(address, timeout=30) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nx")
        time.sleep(0.6)
        connection.sendall(b"x")
        assert _answer(connection)[2].endswith(b" 2")


def test_junk_behind_a_request_that_is_under_way_cuts_no_answer_in_two(address: Address) -> None:
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnot a length\r\n")
        assert connection.recv(65536) == b""
