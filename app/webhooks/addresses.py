"""Where webhooks may go: URLs of a plain form, and public addresses or networks that the operator permits.

What a name stands for is looked up, and checked, when a message is sent (`app.webhooks.network`); here are the rules.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from pydantic import HttpUrl, TypeAdapter, ValidationError

Network = IPv4Network | IPv6Network

LONGEST_URL = 2000
#: What a refusal says of an address, after its name.
NOT_PUBLIC = "is not a public address (the operator can permit networks with MODELPRESS_WEBHOOK_ALLOWED_NETWORKS)"
NO_TLS = "must begin with https:// (the operator can permit http with MODELPRESS_WEBHOOK_ALLOW_HTTP)"
#: Not public, though `ipaddress` of some Python that we run on says so.
_RESERVED = (
    ip_network("192.0.0.0/24"),  # IETF protocols; the metadata service of Oracle's cloud
    ip_network("192.88.99.0/24"),  # relays of 6to4
    ip_network("168.63.129.16/32"),  # the host below a virtual machine of Azure
    ip_network("2001::/23"),  # IETF protocols: Teredo, ORCHID
    ip_network("2002::/16"),  # 6to4: any IPv4 address in disguise
    ip_network("3fff::/20"),  # documentation
)
#: All that was ever given out as IPv6 unicast.
_UNICAST = ip_network("2000::/3")
#: IPv4 addresses as a NAT64 reaches them.
_NAT64 = ip_network("64:ff9b::/96")
_URL: TypeAdapter[HttpUrl] = TypeAdapter(HttpUrl)


class UrlRefused(ValueError):
    """A webhook cannot go to this URL; the message says why."""


def permitted(address: str, networks: Sequence[Network]) -> bool:
    """Whether a webhook may be sent to this address (a literal): it is public, or in one of `networks`."""
    bare = _unwrapped(ip_address(address))
    return any(bare in network for network in networks) or _public(bare)


def checked_url(text: str, networks: Sequence[Network], *, allow_http: bool) -> str:
    """`text` in the normal form of the WHATWG, in which IPv4 addresses have no other spelling.

    Raises:
        UrlRefused: no URL of http(s), with credentials, or of an address that is not permitted.
    """
    try:
        url = _URL.validate_python(text)
    except ValidationError as error:
        raise UrlRefused(f"not a URL of https: {error.errors()[0]['msg']}") from error
    if url.scheme != "https" and not allow_http:
        raise UrlRefused(NO_TLS)
    if url.username is not None or url.password is not None:
        raise UrlRefused("must not hold a user name or password; messages are signed instead")
    literal = _literal(url.host or "")
    if literal is not None and not permitted(literal, networks):
        raise UrlRefused(f"{literal} {NOT_PUBLIC}")
    if len(str(url)) > LONGEST_URL:
        raise UrlRefused(f"must have at most {LONGEST_URL} characters")
    return str(url)


def _literal(host: str) -> str | None:
    """The address that a host of a URL spells out; ``localhost`` counts as one."""
    host = host.removesuffix(".")
    if host == "localhost" or host.endswith(".localhost"):
        return "127.0.0.1"
    try:
        return str(ip_address(host.removeprefix("[").removesuffix("]")))
    except ValueError:
        return None


def _unwrapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address


def _public(address: IPv4Address | IPv6Address) -> bool:
    if address.version == 6 and address not in _UNICAST:
        return False
    return address.is_global and not address.is_multicast and not any(address in network for network in _RESERVED)
