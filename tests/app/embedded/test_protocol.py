"""A real server, to which raw bytes are sent: what a connection may ask is bounded, what is within is served."""

import asyncio
import json
import logging
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from app.embedded import protocol
from app.embedded.protocol import AHEAD, HEAD_BYTES, HEADERS
from app.embedded.serve import http_config
from tests.support.loopback import served

Address = tuple[str, int]
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class _App(Starlette):
    """Routes that read, that do not, and that take their time; `left` has the queries whose clients went away."""

    def __init__(self) -> None:
        super().__init__(
            routes=[
                Route("/", self.read, methods=["GET", "POST"]),
                Route("/early", self.early, methods=["POST"]),
                Route("/late", self.late),
                Route("/long", self.long),
            ]
        )
        self.left: list[str] = []

    async def read(self, request: Request) -> PlainTextResponse:
        try:
            return PlainTextResponse(f"read {len(await request.body())}")
        except ClientDisconnect:
            return PlainTextResponse("nobody reads this")

    async def early(self, _: Request) -> PlainTextResponse:
        return PlainTextResponse("early")

    async def late(self, _: Request) -> PlainTextResponse:
        await asyncio.sleep(1)
        return PlainTextResponse("late")

    async def long(self, request: Request) -> PlainTextResponse:
        await request.body()
        await request.receive()
        self.left.append(request.url.query)
        return PlainTextResponse("nobody reads this")


@contextmanager
def _serving(app: Starlette | None = None, loop: str = "auto") -> Iterator[Address]:
    config = http_config(app or _App(), "")
    config.port, config.loop = 0, loop
    with served(config) as found:
        yield found


@pytest.fixture(params=["uvloop", "asyncio"])
def address(request: pytest.FixtureRequest) -> Iterator[Address]:
    with _serving(loop=request.param) as found:
        yield found


@pytest.fixture(params=["uvloop", "asyncio"])
def hasty(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Address]:
    """A server that gives heads 0.3 s, and bodies 0.5 s without a byte."""
    monkeypatch.setattr(protocol, "HEAD_S", 0.3)
    monkeypatch.setattr(protocol, "BODY_S", 0.5)
    with _serving(loop=request.param) as found:
        yield found


@pytest.fixture(autouse=True)
def calm(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever is sent, the loop meets no exception, and nothing is told of a library that would be missing."""
    caplog.set_level(logging.INFO)
    yield
    assert [
        line for line in caplog.messages if "Fatal error" in line or "xception" in line or "WebSocket" in line
    ] == []


def _answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of all that comes until the server hangs up."""
    received = b""
    while piece := connection.recv(65536):
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return int(status.split()[1]), dict(line.lower().split(": ", 1) for line in lines), body


def _next(connection: socket.socket) -> bytes:
    """The body of the next answer."""
    received = b""
    while not (found := re.search(rb"content-length: (\d+)\r\n(?s:.*?)\r\n\r\n", received)) or len(
        received
    ) < found.end() + int(found[1]):
        piece = connection.recv(1)
        assert piece, received
        received += piece
    return received[found.end() :]


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
    """A request whose head has `size` bytes."""
    head = "\r\n".join(["GET / HTTP/1.1", *lines, "Pad: {}", "", ""])
    return head.format("x" * (size + len("{}") - len(head))).encode()


@pytest.mark.parametrize("cut", [None, 40_000], ids=["whole", "in two"])
def test_a_head_as_large_as_can_be(address: Address, cut: int | None) -> None:
    head = _padded(HEAD_BYTES, "Host: x", "Connection: close")
    status, _, body = _sent(address, head[:cut], head[cut:] if cut else b"")
    assert (status, body) == (200, b"read 0")


@pytest.mark.parametrize("cut", [None, 40_000], ids=["whole", "in two"])
def test_a_head_that_is_too_large(address: Address, cut: int | None, caplog: pytest.LogCaptureFixture) -> None:
    head = _padded(HEAD_BYTES + 1, "Host: x", "Connection: close")
    told = _problem(_sent(address, head[:cut], head[cut:] if cut else b""))
    assert (told["status"], told["code"]) == (431, "head_too_large")
    assert "64 KiB" in told["detail"]
    assert len([line for line in caplog.messages if line.startswith("hung up on 127.0.0.1: ")]) == 1


def test_a_head_of_many_headers(address: Address) -> None:
    lines = [f"a{n}: b" for n in range(HEADERS - 2)]
    assert _sent(address, _padded(HEAD_BYTES, "Connection: close", *lines))[0] == 200
    assert _sent(address, _padded(HEAD_BYTES, "Connection: close", *lines, "c: d"))[0] == 431


def test_who_goes_on_sending_sees_why(address: Address) -> None:
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(_padded(HEAD_BYTES * 2, "Host: x", "Content-Length: 1000000"))
        for _ in range(50):
            connection.sendall(b"x" * 20_000)
            time.sleep(0.001)
        assert _problem(_answer(connection))["code"] == "head_too_large"


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


@pytest.mark.parametrize("piece", [b"a: b\r\n", b"a"], ids=["many", "one"])
def test_trailers_without_an_end_hang_up(address: Address, piece: bytes) -> None:
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            for _ in range(10_000):
                connection.sendall(piece * 3000)


def test_bodies_are_as_long_as_they_like_and_requests_as_many(address: Address) -> None:
    whole = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3_000_000
    chunked = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunked += b"1;name=value\r\nx\r\n" * 30_000 + b"0\r\nTrailer: y\r\n\r\n"
    with socket.create_connection(address, timeout=30) as connection:
        for _ in range(3):
            connection.sendall(whole)
            assert _next(connection) == b"read 3000000"
        connection.sendall(chunked)
        assert _answer(connection)[2] == b"read 30000"


def test_requests_ahead_are_answered_in_order(address: Address) -> None:
    posts = [f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {n}\r\n\r\n{'x' * n}" for n in range(AHEAD)]
    posts.append("POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 99\r\n\r\n" + "x" * 99)
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall("".join(posts).encode())
        received = b""
        while piece := connection.recv(65536):
            received += piece
    assert re.findall(rb"read (\d+)", received) == [b"%d" % n for n in (*range(AHEAD), 99)]


def test_a_flood_of_requests_ahead_hangs_up(address: Address) -> None:
    before = psutil.Process().memory_info().rss
    with (
        socket.create_connection(address, timeout=30) as connection,
        pytest.raises(OSError, match=r"reset|Broken pipe"),
    ):
        for _ in range(1000):
            connection.sendall(GET * 10_000)
    assert psutil.Process().memory_info().rss - before < 16 << 20


@pytest.mark.parametrize("junk", [b"\x16\x03\x01\x02\x00\x01\xfc\x03\x03", b"GET / FTP/9\r\n\r\n", b"no\r\n\r\n"])
def test_what_is_not_http(address: Address, junk: bytes) -> None:
    told = _problem(_sent(address, junk))
    assert (told["status"], told["code"]) == (400, "bad_request")


@pytest.mark.parametrize(
    ("path", "junk"), [("/", b"not a length\r\n"), ("/early", b"not a length\r\n"), ("/", b"0\r\n\r\nno HTTP\r\n")]
)
def test_no_answer_is_taken_for_that_of_another_request(address: Address, path: str, junk: bytes) -> None:
    """Once a request is under way or answered, what comes behind it only ends the connection."""
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        if path == "/early":
            assert _next(connection) == b"early"
        connection.sendall(junk)
        assert connection.recv(65536) == b""


@pytest.mark.parametrize("body", ["", "GET /late HTTP/1.1\r\nHost: x\r\n\r\n"], ids=["without", "with"])
def test_an_upgrade_that_is_not_offered(address: Address, body: str) -> None:
    """Without a body it is served as if it had not been asked for; with one, that would be taken for a request."""
    head = ["POST / HTTP/1.1", "Host: x", "Connection: Upgrade", "Upgrade: h2c"]
    head += [f"Content-Length: {len(body)}"] if body else ["Content-Length: 0"]
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall("\r\n".join([*head, "", body]).encode())
        if body:
            told = _problem(_answer(connection))
            assert (told["code"], "Upgrade" in told["detail"]) == ("bad_request", True)
        else:
            assert _next(connection) == b"read 0"


@pytest.mark.parametrize("first", [b"", GET], ids=["first", "second"])
@pytest.mark.parametrize("together", [True, False], ids=["in one piece", "in two"])
def test_a_head_that_does_not_come_to_its_end(hasty: Address, first: bytes, together: bool) -> None:
    with socket.create_connection(hasty, timeout=30) as connection:
        if first and not together:
            connection.sendall(first)
            assert _next(connection) == b"read 0"
        connection.sendall(first * together + b"GET / HTTP/1.1\r\nHo")
        if first and together:
            assert _next(connection) == b"read 0"
        assert _problem(_answer(connection))["code"] == "request_timeout"


@pytest.mark.parametrize(
    ("sent", "then"),
    [
        (b"", b""),
        (b"", b"\r\n"),
        (GET, b"\r\n"),
        (b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", b"x"),
        (b"POST /early HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"0\r\na: "),
    ],
)
def test_a_connection_that_asks_nothing_is_closed(hasty: Address, sent: bytes, then: bytes) -> None:
    with socket.create_connection(hasty, timeout=30) as connection:
        connection.sendall(sent)
        if sent:
            assert _next(connection) in (b"read 0", b"early")
        connection.sendall(then)
        assert connection.recv(1) == b""


def test_a_body_that_nobody_reads_is_not_read_for_ever(hasty: Address) -> None:
    with socket.create_connection(hasty, timeout=30) as connection:
        connection.sendall(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            for _ in range(10_000):
                connection.sendall(b"x")
                time.sleep(0.001)


@pytest.mark.parametrize("head", [b"Content-Length: 9", b"Transfer-Encoding: chunked"])
def test_a_body_that_stands_still_hangs_up(hasty: Address, head: bytes) -> None:
    with socket.create_connection(hasty, timeout=30) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n1\r\n")
        assert connection.recv(1) == b""


def test_a_body_that_moves_has_all_the_time(hasty: Address) -> None:
    with socket.create_connection(hasty, timeout=30) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n")
        for _ in range(12):
            time.sleep(0.2)
            connection.sendall(b"x")
        assert _next(connection) == b"read 12"


def test_a_head_behind_an_answer_has_all_its_time(address: Address) -> None:
    """uvicorn gives connections that rest after an answer less, and must not take this one for such."""
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(GET + GET[:9])
        assert _next(connection) == b"read 0"
        time.sleep(http_config(_App(), "").timeout_keep_alive + 0.5)
        connection.sendall(GET[9:])
        assert _next(connection) == b"read 0"


@pytest.mark.parametrize("behind", [b"GET / HT", GET + b"GET / HT", b"\r\n"])
def test_the_time_that_answers_take_is_not_the_clients(hasty: Address, behind: bytes) -> None:
    with socket.create_connection(hasty, timeout=30) as connection:
        connection.sendall(b"GET /late HTTP/1.1\r\nHost: x\r\n\r\n" + behind)
        assert _next(connection) == b"late"


def test_every_application_is_told_that_its_client_has_gone() -> None:
    app = _App()
    with _serving(app) as address:
        with socket.create_connection(address, timeout=30) as connection:
            connection.sendall(b"".join(b"GET /long?%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(2)))
            time.sleep(0.3)
        until = time.monotonic() + 30
        while not app.left and time.monotonic() < until:
            time.sleep(0.01)
    assert app.left == ["0"], "the second has not begun"
