"""Connections go to checked addresses alone, and TLS with the name of the URL."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.webhooks.network import look_up
from tests.support.posting import LOOPBACK, Names, poster
from tests.support.receiver import Receiver, receiving

pytestmark = pytest.mark.anyio


async def test_loopback_is_refused_by_default(receiver: Receiver) -> None:
    async with poster() as posts:
        for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "0.0.0.0"):
            outcome = await posts.post(f"http://{host}:{receiver.port}/", {}, "{}")
            assert outcome.error is not None
            assert outcome.error["code"] == "webhook_url_not_allowed"
            assert "is not a public address" in outcome.error["detail"]
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


async def test_nobody_listens_and_no_name(free_port: int) -> None:
    async with poster(webhook_allowed_networks=LOOPBACK) as posts:
        for url in (f"http://127.0.0.1:{free_port}/", "http://a..b/", f"http://{64 * 'a'}.test/"):
            outcome = await posts.post(url, {}, "{}")
            assert outcome.error is not None
            assert outcome.error["code"] == "webhook_unreachable"


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


def test_addresses_are_looked_up_in_threads_of_their_own() -> None:
    found = asyncio.run(look_up("127.0.0.1", 80))
    assert found == ["127.0.0.1"]
    with pytest.raises((OSError, UnicodeError)):
        asyncio.run(look_up("a..b", socket.IPPORT_RESERVED))
