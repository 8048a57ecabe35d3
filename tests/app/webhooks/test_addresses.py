"""Which URLs and addresses webhooks may go to."""

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config import Settings
from app.webhooks.addresses import UrlRefused, checked_url, permitted

PUBLIC = ("1.1.1.1", "93.184.216.34", "2606:4700::1111", "2a00:1450:4001::1", "::ffff:1.1.1.1", "64:ff9b::101:101")
PRIVATE = (
    "0.0.0.0", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "169.254.169.254", "172.16.0.1",
    "192.0.0.192", "192.168.1.1", "192.88.99.1", "168.63.129.16", "198.18.0.1", "224.0.0.1", "240.0.0.1",
    "255.255.255.255", "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1",
    "64:ff9b:1::1", "2001::1", "2002:7f00:1::", "2002:101:101::", "2001:db8::1", "3fff::1", "5f00::1", "fc00::1",
    "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "ff0e::1",
)  # fmt: skip
NAMES = ("localhost", "LOCALHOST", "localhost.", "a.localhost")


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    assert permitted(address, ())
    host = f"[{address}]" if ":" in address else address
    assert checked_url(f"https://{host}/x", (), allow_http=False)


@pytest.mark.parametrize("address", PRIVATE)
def test_other_addresses(address: str) -> None:
    assert not permitted(address, ())
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(UrlRefused):
        checked_url(f"https://{host}/x", (), allow_http=False)


@pytest.mark.parametrize("host", NAMES)
def test_names_of_loopback(host: str) -> None:
    with pytest.raises(UrlRefused, match="not a public address"):
        checked_url(f"https://{host}/x", (), allow_http=False)
    assert checked_url(f"https://{host}/x", (ip_network("127.0.0.0/8"),), allow_http=False)


def _spellings(address: IPv4Address) -> list[str]:
    number, parts = int(address), address.packed
    return [
        str(address),
        f"{address}.",
        str(number),
        hex(number),
        f"0{number:o}",
        ".".join(hex(part) for part in parts),
        ".".join(f"0{part:o}" for part in parts),
        f"{parts[0]}.{number & 0xFFFFFF}",
        "".join(f"%{ord(character):02x}" for character in str(address)),
        str(address).translate({ord(digit): ord(digit) + 0xFEE0 for digit in "0123456789"}),
        f"[::ffff:{address}]",
        f"[{IPv6Address(0x64FF9B << 96 | number)}]",
    ]


@given(st.ip_addresses(v=4))
def test_every_spelling_is_judged_alike(address: IPv4Address) -> None:
    for host in _spellings(address):
        if permitted(str(address), ()):
            assert checked_url(f"https://{host}/", (), allow_http=False)
        else:
            with pytest.raises(UrlRefused):
                checked_url(f"https://{host}/", (), allow_http=False)
        assert checked_url(f"https://{host}/", (ip_network(f"{address}/32"),), allow_http=False)


@given(st.ip_addresses())
def test_what_is_permitted_is_unicast_of_the_public(address: IPv4Address | IPv6Address) -> None:
    if permitted(str(address), ()):
        assert not (address.is_private or address.is_loopback or address.is_link_local or address.is_multicast)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://example.com/", "must begin with https"),
        ("ftp://example.com/", "not a URL"),
        ("file:///etc/passwd", "not a URL"),
        ("https://", "not a URL"),
        ("not a url", "not a URL"),
        ("https://user@example.com/", "user name"),
        ("https://user:secret@example.com/", "user name"),
        ("https://:secret@example.com/", "user name"),
        ("https://example.com/" + 2000 * "ä", "at most"),
    ],
)
def test_other_urls_are_refused(url: str, why: str) -> None:
    with pytest.raises(UrlRefused, match=why):
        checked_url(url, (), allow_http=False)


def test_networks_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELPRESS_WEBHOOK_ALLOWED_NETWORKS", '["10.20.0.0/24", "fd00:20::/64"]')
    networks = Settings(_env_file=None).webhook_allowed_networks
    assert [permitted(address, networks) for address in ("10.20.0.9", "fd00:20::9", "10.20.1.9")] == [True, True, False]


def test_normal_form() -> None:
    assert checked_url("HTTPS://Bücher.example:443/ä b?x=1", (), allow_http=False) == (
        "https://xn--bcher-kva.example/%C3%A4%20b?x=1"
    )
    assert checked_url("http://example.com", (), allow_http=True) == "http://example.com/"
