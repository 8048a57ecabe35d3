"""One POST: what it carries, where it never goes, and what is made of the answer."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.config import Settings
from app.webhooks.attempt import DISABLED, Outcome, Poster, pause_after
from app.webhooks.network import look_up
from tests.support.receiver import Receiver, receiving

pytestmark = pytest.mark.anyio
LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
REFUSED = {"code": "webhook_refused", "detail": "the receiver answered 500"}


class Names:
    """Name servers whose answers come from a list; the last one stays."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


@asynccontextmanager
async def poster(names: Names | None = None, **changes: object) -> AsyncIterator[Poster]:
    settings = Settings(_env_file=None, webhook_timeout_s=2).model_copy(update=changes)
    made = Poster(settings, 4, names or look_up)
    yield made
    await made.close()


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


async def test_loopback_is_refused_by_default(receiver: Receiver) -> None:
    async with poster() as posts:
        for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "0.0.0.0"):
            outcome = await posts.post(f"http://{host}:{receiver.port}/", {}, "{}")
            assert outcome.error is not None
            assert outcome.error["code"] == "webhook_url_not_allowed"
    assert receiver.seen == []


async def test_one_bad_address_among_good_ones_is_enough(receiver: Receiver) -> None:
    async with poster(Names(["1.1.1.1", "127.0.0.1"])) as posts:
        outcome = await posts.post(f"http://receiver.test:{receiver.port}/", {}, "{}")
    assert outcome.error is not None
    assert outcome.error["code"] == "webhook_url_not_allowed"
    assert "127.0.0.1" not in outcome.error["detail"], "what a name means inside is not told"
    assert receiver.seen == []


async def test_names_that_change_their_meaning_after_the_check(receiver: Receiver) -> None:
    """The lookup that was checked is the one that is connected to: there is no second."""
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    async with poster(names, webhook_allowed_networks=[ip_network("127.0.0.1/32")]) as posts:
        first = await posts.post(f"http://receiver.test:{receiver.port}/", {}, "{}")
        assert names.asked == ["receiver.test"]
        second = await posts.post(f"http://receiver.test:{receiver.port}/", {}, "{}")
    assert first.status == 204
    assert receiver.seen[0].headers["Host"] == f"receiver.test:{receiver.port}"
    assert second.error is not None, "no connection is kept: the new meaning is checked too"
    assert second.error["code"] == "webhook_url_not_allowed"
    assert len(receiver.seen) == 1


async def test_the_next_address_where_one_does_not_answer(receiver: Receiver) -> None:
    async with poster(Names(["::1", "127.0.0.1"]), webhook_allowed_networks=LOOPBACK) as posts:
        assert (await posts.post(f"http://receiver.test:{receiver.port}/", {}, "{}")).status == 204


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


async def test_nobody_listens_and_no_name(free_port: int) -> None:
    async with poster(webhook_allowed_networks=LOOPBACK) as posts:
        for url in (f"http://127.0.0.1:{free_port}/", "http://a..b/", f"http://{64 * 'a'}.test/"):
            outcome = await posts.post(url, {}, "{}")
            assert outcome.error is not None
            assert outcome.error["code"] == "webhook_unreachable"


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


@pytest.fixture
def certificate(tmp_path: Path) -> Iterator[Path]:
    """A self-signed certificate of receiver.test and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver.test")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("receiver.test")]), critical=False)
    made = builder.sign(key, hashes.SHA256())
    file = tmp_path / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    yield file


async def test_tls_is_with_the_name_of_the_url(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []
    names = Names(["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda connection, name, _: asked.append(name)
    with receiving(context) as receiver:
        port = receiver.port
        async with poster(names, webhook_allowed_networks=LOOPBACK) as posts:
            stranger = await posts.post(f"https://receiver.test:{port}/", {}, "{}")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with poster(names, webhook_allowed_networks=LOOPBACK) as posts:
            known = await posts.post(f"https://receiver.test:{port}/", {}, "{}")
            other = await posts.post(f"https://other.test:{port}/", {}, "{}")
    assert known.status == 204
    assert asked == ["receiver.test", "receiver.test", "other.test"]
    for outcome in (stranger, other):
        assert outcome.error is not None
        assert outcome.error["code"] == "webhook_unreachable"
        assert "certificate" in outcome.error["detail"]


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


def test_addresses_are_looked_up_in_threads_of_their_own() -> None:
    found = asyncio.run(look_up("127.0.0.1", 80))
    assert found == ["127.0.0.1"]
    with pytest.raises((OSError, UnicodeError)):
        asyncio.run(look_up("a..b", socket.IPPORT_RESERVED))
