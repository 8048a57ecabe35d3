"""One POST: what it carries, and what is made of the answer."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from app.webhooks.attempt import DISABLED, Outcome, pause_after
from tests.support.posting import LOOPBACK, poster
from tests.support.receiver import Receiver

pytestmark = pytest.mark.anyio
REFUSED = {"code": "webhook_refused", "detail": "the receiver answered 500"}


async def test_it_is_a_post_of_json(receiver: Receiver) -> None:
    async with poster(webhook_allowed_networks=LOOPBACK) as posts:
        outcome = await posts.post(f"{receiver.url}?a=b", {"webhook-id": "whd_1"}, '{"ü": 1}')
    (seen,) = receiver.seen
    assert (outcome.error, outcome.status) == (None, 204)
    assert seen.path == "/hook?a=b"
    assert seen.body == '{"ü": 1}'.encode()
    assert seen.headers["webhook-id"] == "whd_1"
    assert seen.headers["Content-Type"] == "application/json"
    assert seen.headers["User-Agent"].startswith("Modelpress/")
    assert seen.headers["Host"] == f"127.0.0.1:{receiver.port}"


async def test_plain_http_is_refused_by_default(receiver: Receiver) -> None:
    async with poster(webhook_allowed_networks=LOOPBACK, webhook_allow_http=False) as posts:
        outcome = await posts.post(receiver.url, {}, "{}")
    assert outcome.error is not None
    assert outcome.error["code"] == "webhook_url_not_allowed"
    assert receiver.seen == []


async def test_redirects_are_not_followed(receiver: Receiver) -> None:
    for status in (301, 302, 303, 307, 308):
        receiver.answers.append((status, {"Location": receiver.url}))
        async with poster(webhook_allowed_networks=LOOPBACK) as posts:
            outcome = await posts.post(receiver.url, {}, "{}")
        assert outcome.status == status
        assert outcome.error is not None
        assert "redirects are not followed" in outcome.error["detail"]
    assert len(receiver.seen) == 5


async def test_proxies_of_the_environment_are_not_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with poster(webhook_allowed_networks=LOOPBACK) as posts:
        assert (await posts.post(receiver.url, {}, "{}")).status == 204


async def test_a_receiver_that_hangs(receiver: Receiver) -> None:
    receiver.open.clear()
    async with poster(webhook_allowed_networks=LOOPBACK, webhook_timeout_s=0.2) as posts:
        outcome = await posts.post(receiver.url, {}, "{}")
    assert outcome.error == {"code": "webhook_timeout", "detail": "no answer within 0.2 s"}
    assert outcome.duration_ms >= 200


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nX: " + 300_000 * b"x", "webhook_unreachable"),
        (b"SSH-2.0-OpenSSH\r\n", "webhook_unreachable"),
        (b"", "webhook_unreachable"),
        (b"HTTP/1.1 503 No\r\nRetry-After: " + 400 * b"9" + b"\r\n\r\n", "webhook_refused"),
        (b"HTTP/1.1 503 No\r\nRetry-After: Fri, 99 Foo 99999 99:99:99 +99999999\r\n\r\n", "webhook_refused"),
    ],
    ids=["endless body", "endless header", "no HTTP", "nothing", "large wish", "no date"],
)
async def test_strange_answers(answer: bytes, code: str | None) -> None:
    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(answer)
        with suppress(OSError):
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        over.set()

    over = asyncio.Event()
    async with await asyncio.start_server(answers, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with poster(webhook_allowed_networks=LOOPBACK) as posts:
            outcome = await posts.post(f"http://127.0.0.1:{port}/", {}, "{}")
        await over.wait()
    assert (outcome.error or {}).get("code") == code


def test_pauses() -> None:
    failed = Outcome(REFUSED, 500)
    for attempt, pause in ((1, 5), (2, 300)):
        assert pause <= (pause_after(failed, attempt, (5, 300)) or 0) <= 1.1 * pause
    assert pause_after(failed, 3, (5, 300)) is None
    assert pause_after(failed, 1, ()) is None
    assert pause_after(Outcome(None, 200), 1, (5,)) is None
    assert pause_after(Outcome(REFUSED, 410), 1, (5,)) is None
    assert pause_after(DISABLED, 1, (5,)) is None


def test_a_longer_pause_is_granted_within_reason() -> None:
    assert pause_after(Outcome(REFUSED, 429, wish_s=60), 1, (5,)) == 60
    assert 5 <= (pause_after(Outcome(REFUSED, 429, wish_s=1), 1, (5,)) or 0) <= 5.5
    assert pause_after(Outcome(REFUSED, 429, wish_s=1e9), 1, (5,)) == 86_400


async def test_retry_after_is_seconds_or_a_date(receiver: Receiver) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    wishes = []
    async with poster(webhook_allowed_networks=LOOPBACK) as posts:
        for text in ("7", date, "soon", "-1"):
            receiver.answers.append((503, {"Retry-After": text}))
            wishes.append((await posts.post(receiver.url, {}, "{}")).wish_s)
    assert wishes[0] == 7
    assert 90 < wishes[1] <= 100
    assert wishes[2:] == [None, None]
