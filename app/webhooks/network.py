"""Connections to checked addresses alone: a name is looked up once, every address it has is checked, and one of
exactly these is connected to. An answer of the name servers that changes afterwards has no effect.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from httpcore2 import SOCKET_OPTION, AnyIOBackend, AsyncNetworkBackend, AsyncNetworkStream, ConnectError

from app.webhooks.addresses import NOT_PUBLIC, Network, permitted

#: Gives the addresses of a host. Raises OSError or UnicodeError.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

#: Addresses of one name that are tried.
_MOST_TRIED = 4
#: Lookups cannot be interrupted: slow name servers must not hold the threads that the rest of the process uses.
_LOOKUPS = ThreadPoolExecutor(8, thread_name_prefix="webhook-lookup")

log = logging.getLogger(__name__)


class AddressRefused(Exception):
    """The host has an address that webhooks may not reach."""


async def look_up(host: str, port: int) -> Sequence[str]:
    """The addresses that the system knows for `host`. Raises OSError or UnicodeError."""
    loop = asyncio.get_running_loop()
    found = await loop.run_in_executor(_LOOKUPS, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class CheckedBackend(AsyncNetworkBackend):
    """What httpcore connects with. TLS and the Host header keep the name of the URL."""

    def __init__(self, networks: Sequence[Network], resolve: Resolve = look_up) -> None:
        self._networks = networks
        self._resolve = resolve
        self._tcp = AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's own signature
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> AsyncNetworkStream:
        """A connection to one of the host's addresses, all of which are permitted.

        Raises:
            AddressRefused: one of them is not.
            httpcore2.ConnectError: the name has no address, or none of them answers.
        """
        failure = ConnectError("the name has no address")
        for address in await self._checked(host, port):
            try:
                return await self._tcp.connect_tcp(address, port, timeout, local_address, socket_options)
            except ConnectError as error:
                failure = error
        raise failure

    async def connect_unix_socket(self, *arguments: Any, **options: Any) -> AsyncNetworkStream:
        """Refused: webhooks go over the network."""
        raise AddressRefused("a unix socket")

    async def _checked(self, host: str, port: int) -> Sequence[str]:
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise ConnectError("the name has no address") from error
        refused = [address for address in addresses if not permitted(address, self._networks)]
        if refused:
            # What a name means inside is for the operator alone.
            log.warning("a webhook to %s was not sent: it has the address %s", host, refused[0])
            raise AddressRefused(f"{host} {NOT_PUBLIC}")
        return addresses[:_MOST_TRIED]
