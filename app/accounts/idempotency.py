"""Idempotency-Key: the first response to a POST answers its repetitions (draft-ietf-httpapi-idempotency-key-header).

The response is stored in the transaction of what it tells of, so both are there or neither. While the first request
runs it holds a lease on the key, so a crash frees the key; whoever lost the lease cannot commit.

A key is that of a workspace. In another role its request is another request, so that whoever may less gets no answer
that a stronger caller was given.

A response may hold a new API key, of which only a hash may be kept in clear: bodies are stored under a one-time pad
drawn from SHAKE-256 over the deployment's pepper and the row's random `owner`.
"""

import hashlib
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from fastapi import Request, Response
from pydantic import SecretStr
from sqlalchemy import ColumnElement, delete, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import CursorResult
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.credentials import Caller
from app.accounts.renewal import renewed
from app.clock import NOW
from app.db import Database, delete_some
from app.errors import BadRequest, Conflict, Invalid
from app.tables import IdempotencyKey
from app.web.services import Services

HEADER = "Idempotency-Key"
LEASE = timedelta(seconds=30)
_LONGEST_KEY = 255
#: Headers that belong to the response itself, not to its transport.
_KEPT_HEADERS = ("content-type", "location", "retry-after", "upload-offset", "upload-expires")


class Replay(Exception):
    """This request was answered before; `response` is that answer."""

    def __init__(self, response: Response) -> None:
        super().__init__("replayed")
        self.response = response


class Once:
    """One POST of `caller` with an Idempotency-Key. Raises `BadRequest` for one that is none."""

    def __init__(self, services: Services, caller: Caller, key: str) -> None:
        if not 1 <= len(key) <= _LONGEST_KEY or not (key.isascii() and key.isprintable()):
            raise BadRequest(
                f"{HEADER} must be 1 to {_LONGEST_KEY} printable ASCII characters, such as a UUID.",
                code="idempotency_key_invalid",
            )
        self._database: Database = services.database
        self._pepper = services.settings.key_pepper
        self._retention = timedelta(seconds=services.settings.idempotency_ttl_s)
        self._workspace_id = caller.workspace_id
        self._role = caller.role
        self._key = key
        self._owner = secrets.token_hex(16)
        self._fingerprint: str | None = None
        self._before: IdempotencyKey | None = None

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[None]:
        """Holds the key while the block runs. Raises `Conflict` while another request holds it."""
        await self._take()
        longer = update(IdempotencyKey).where(self._mine()).values(expires_at=NOW + LEASE)
        gone = delete(IdempotencyKey).where(self._mine())
        async with renewed(self._database, longer, gone, LEASE.total_seconds() / 3):
            yield

    def settle(self, fingerprint: str) -> None:
        """Tells what is asked for, as soon as it is known.

        Raises `Replay` where the same was answered before, `Invalid` where something else was.
        """
        # The answer is found before the endpoint has looked at the role.
        self._fingerprint = hashlib.sha256(f"{self._role} {fingerprint}".encode()).hexdigest()
        if self._before is None:
            return
        if self._before.fingerprint != self._fingerprint:
            raise Invalid(
                f"This {HEADER} was used for another request, or in another role; take a fresh key for each operation.",
                code="idempotency_key_reused",
            )
        raise Replay(_revive(self._before, self._pepper))

    async def remember(self, session: AsyncSession, response: Response) -> None:
        """Stores the response, in the transaction of what it tells of. Raises `Conflict` where the lease was lost."""
        kept = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
        values = {
            "fingerprint": self._fingerprint,
            "status": response.status_code,
            "headers": kept,
            "body": _pad(bytes(response.body), self._owner, self._pepper),
            "expires_at": NOW + self._retention,
        }
        result = await session.execute(update(IdempotencyKey).where(self._mine()).values(values))
        if isinstance(result, CursorResult) and result.rowcount == 0:
            raise _in_progress()

    @property
    def answered(self) -> bool:
        """Whether a request with this key was answered before, be it the same or another."""
        return self._before is not None

    @property
    def settled(self) -> bool:
        """Whether it is known what is asked for."""
        return self._fingerprint is not None

    async def _take(self) -> None:
        fresh = {
            "owner": self._owner,
            "fingerprint": None,
            "status": None,
            "headers": None,
            "body": None,
            "expires_at": NOW + LEASE,
        }
        statement = insert(IdempotencyKey).values(workspace_id=self._workspace_id, key=self._key, **fresh)
        statement = statement.on_conflict_do_update(
            index_elements=[IdempotencyKey.workspace_id, IdempotencyKey.key],
            set_=fresh,
            where=IdempotencyKey.expires_at < NOW,
        )
        async with self._database.transaction() as session:
            if await session.scalar(statement.returning(IdempotencyKey.owner)) is not None:
                return
            self._before = await session.get(IdempotencyKey, (self._workspace_id, self._key))
        if self._before is None or self._before.status is None:
            raise _in_progress()

    def _mine(self) -> ColumnElement[bool]:
        return (
            (IdempotencyKey.workspace_id == self._workspace_id)
            & (IdempotencyKey.key == self._key)
            & (IdempotencyKey.owner == self._owner)
            & IdempotencyKey.status.is_(None)
        )


async def fingerprint(request: Request) -> str:
    """What a request with a body in memory asks for; JSON counts by its meaning, not its spacing."""
    body = await request.body()
    with suppress(ValueError, RecursionError):
        body = json.dumps(json.loads(body), sort_keys=True).encode()
    return digest_of(request, body)


def digest_of(request: Request, body: bytes) -> str:
    """Digest of method, path and a rendering of the body."""
    return hashlib.sha256(f"{request.method} {request.url.path}\n".encode() + body).hexdigest()


async def forget_expired(session: AsyncSession) -> None:
    """Removes rows past their time, some at a time; for the maintenance loop."""
    await session.execute(delete_some(IdempotencyKey, IdempotencyKey.expires_at < NOW))


def _in_progress() -> Conflict:
    return Conflict(
        f"The first request with this {HEADER} is still running; repeat this one shortly.",
        code="request_in_progress",
        headers={"Retry-After": "1"},
    )


def _revive(row: IdempotencyKey, pepper: SecretStr) -> Response:
    headers = {**(row.headers or {}), "Idempotency-Replayed": "true"}
    return Response(_pad(row.body or b"", row.owner, pepper), row.status or 500, headers)


def _pad(body: bytes, owner: str, pepper: SecretStr) -> bytes:
    stream = hashlib.shake_256(f"{len(pepper)}:{pepper.get_secret_value()}:{owner}".encode()).digest(len(body))
    return (int.from_bytes(body) ^ int.from_bytes(stream)).to_bytes(len(body))
