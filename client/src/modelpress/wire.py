"""The two thin transports; everything above them is written once, as coroutines.

With `AsyncWire` those coroutines run in the caller's event loop. With `BlockingWire` they never suspend, so
`drive` runs them to their end without any loop: the blocking client is the same code.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, ParamSpec, Protocol, TypeVar

import httpx

P = ParamSpec("P")
T = TypeVar("T")


class Wire(Protocol):
    """What the client needs from the outside world."""

    async def send(self, request: httpx.Request) -> httpx.Response:
        """Sends; the response's body is not read yet."""

    async def read(self, response: httpx.Response) -> bytes:
        """Reads the whole body and closes it."""

    def pieces(self, response: httpx.Response) -> AsyncGenerator[bytes]:
        """The body as it arrives."""

    async def close(self, response: httpx.Response) -> None:
        """Gives the connection of an unread body back."""

    async def sleep(self, seconds: float) -> None:
        """Waits."""

    async def offload(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` answers, which reads from the disk: other coroutines go on meanwhile."""

    async def aclose(self) -> None:
        """Closes all connections."""


class BlockingWire:
    """`Wire` on `httpx.Client`: its coroutines never suspend."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    async def send(self, request: httpx.Request) -> httpx.Response:
        """See `Wire`."""
        return self._http.send(request, stream=True, follow_redirects=True)

    async def read(self, response: httpx.Response) -> bytes:
        """See `Wire`."""
        try:
            return response.read()
        finally:
            response.close()

    async def pieces(self, response: httpx.Response) -> AsyncGenerator[bytes]:
        """See `Wire`."""
        for piece in response.iter_raw():
            yield piece

    async def close(self, response: httpx.Response) -> None:
        """See `Wire`."""
        response.close()

    async def sleep(self, seconds: float) -> None:
        """See `Wire`."""
        time.sleep(seconds)  # noqa: ASYNC251

    async def offload(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Wire`."""
        return work(*args, **kwargs)

    async def aclose(self) -> None:
        """See `Wire`."""
        self._http.close()


class AsyncWire:
    """`Wire` on `httpx.AsyncClient`."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def send(self, request: httpx.Request) -> httpx.Response:
        """See `Wire`."""
        return await self._http.send(request, stream=True, follow_redirects=True)

    async def read(self, response: httpx.Response) -> bytes:
        """See `Wire`."""
        try:
            return await response.aread()
        finally:
            await response.aclose()

    async def pieces(self, response: httpx.Response) -> AsyncGenerator[bytes]:
        """See `Wire`."""
        async for piece in response.aiter_raw():
            yield piece

    async def close(self, response: httpx.Response) -> None:
        """See `Wire`."""
        await response.aclose()

    async def sleep(self, seconds: float) -> None:
        """See `Wire`."""
        await asyncio.sleep(seconds)

    async def offload(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Wire`."""
        return await asyncio.to_thread(work, *args, **kwargs)

    async def aclose(self) -> None:
        """See `Wire`."""
        await self._http.aclose()


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine that never suspends, as all do on a `BlockingWire`, and returns its value."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    finally:
        coroutine.close()
    raise RuntimeError("a coroutine of the blocking client suspended")
