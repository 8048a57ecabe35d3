"""One call with its key, its retries and its errors."""

import json
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from modelpress.errors import ConnectionFailed, ProblemError, ProtocolError, problem
from modelpress.requests import Call
from modelpress.retries import HOPELESS, Retries, retry_after, transient
from modelpress.wire import Wire

TIMEOUT = httpx.Timeout(60.0, connect=10.0)
# The service may hash and store what was sent before it answers.
UPLOAD_TIMEOUT = httpx.Timeout(60.0, connect=10.0, read=600.0)


class Session:
    """Makes calls to one service as the owner of one key."""

    def __init__(self, wire: Wire, url: str, key: str, retries: Retries) -> None:
        self.wire = wire
        self.retries = retries
        self.url = url
        self._key = key

    async def json(self, call: Call) -> Any:
        """The answer's parsed JSON; None where it has no body.

        Raises:
            ProblemError: the service refused.
            ConnectionFailed: it was not reached within the retries.
            ProtocolError: the answer is not JSON.
        """
        response = await self.respond(call)
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError as error:
            told = f"{call.method} {response.url.path} answered {response.status_code} without JSON"
            raise ProtocolError(f"{told}; is {self.url} a Modelpress service?") from error

    async def text(self, call: Call) -> str:
        """The answer's body as text."""
        return (await self.respond(call)).text

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[httpx.Response]:
        """An answer whose body the caller reads; the connection is given back at the end."""
        response = await self.respond(call)
        try:
            yield response
        finally:
            await self.wire.close(response)

    async def respond(self, call: Call) -> httpx.Response:
        """The first answer below 400; its body is read unless the call streams."""
        # One key for all attempts: the service answers a repeated POST with its first response.
        unique = {"Idempotency-Key": secrets.token_hex(16)} if call.method == "POST" else {}
        lost = False
        failures = 0
        while True:
            failure: ProblemError | ConnectionFailed
            try:
                response = await self.wire.send(self._request(call, unique))
                if response.status_code < 400:
                    if not call.stream:
                        await self.wire.read(response)
                    return response
                refusal = _refusal(response, await self.wire.read(response))
            except HOPELESS as error:
                raise ConnectionFailed(f"{self.url}: {error}") from error
            except httpx.TransportError as error:
                lost, wait_s = True, None
                failure = ConnectionFailed(f"cannot reach {self.url}: {error or type(error).__name__}")
                failure.__cause__ = error
            else:
                if lost and call.method == "DELETE" and refusal.status == 404:
                    return response  # the attempt whose answer was lost had deleted it
                if not transient(refusal):
                    raise refusal
                failure, wait_s = refusal, refusal.retry_after_s
            if call.once:
                raise failure
            failures += 1
            pause = self.retries.pause(failures, wait_s)
            if pause is None:
                raise failure
            await self.wire.sleep(pause)

    def _request(self, call: Call, unique: Mapping[str, str]) -> httpx.Request:
        url = f"{self.url}/v1/{call.path}"
        headers = {
            "Accept": "application/json",
            "Authorization": f"Bearer {self._key}",
            "User-Agent": "modelpress",
            **unique,
            **call.headers,
        }
        params = {name: value for name, value in call.params.items() if value is not None} or None
        if call.upload is None:
            extensions = {"timeout": TIMEOUT.as_dict()}
            return httpx.Request(
                call.method, url, params=params, headers=headers, json=call.json, extensions=extensions
            )
        extensions = {"timeout": UPLOAD_TIMEOUT.as_dict()}
        request = httpx.Request(call.method, url, headers={**headers, **call.upload.headers}, extensions=extensions)
        request.stream = call.upload
        return request


def _refusal(response: httpx.Response, body: bytes) -> ProblemError:
    try:
        data = json.loads(body)
    except ValueError:
        data = None
    reason = f"{response.request.method} {response.url.path} answered {response.status_code} {response.reason_phrase}"
    return problem(response.status_code, data, reason=reason, retry_after_s=retry_after(response.headers))
