"""A job's history over HTTP: Server-Sent Events that resume, pages of the same, and logs as text."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy.exc import SQLAlchemyError

from app.accounts.caller import Caller, Reader, recognize
from app.accounts.sessions import authorization
from app.db import Database
from app.errors import BadRequest, NotFound, Unauthenticated, Unavailable
from app.instruments import STREAMS
from app.jobs import events, repository
from app.jobs.broadcast import Broadcast
from app.jobs.schemas import EventPage, EventView
from app.tables import Job, JobEvent
from app.tables.jobs import TERMINAL
from app.web.problems import responses
from app.web.services import Services, ServicesDep

#: Events that are read at once.
BATCH = 500
#: What a client waits before it connects again, in milliseconds.
RETRY_MS = 1000
_LARGEST = 2**63 - 1

log = logging.getLogger(__name__)

# No WorkspaceRoute: a stream must not hold a transaction.
router = APIRouter()


async def get_broadcast(request: Request) -> Broadcast:
    """The broadcast of the application that serves `request`."""
    broadcast: Broadcast = request.app.state.broadcast
    return broadcast


async def _job(caller: Reader, services: ServicesDep, job_id: str) -> Job:
    async with services.database.transaction() as session:
        job = await repository.find(session, caller.workspace_id, job_id)
    if job is None:
        raise NotFound(f"There is no job {job_id[:100]!r} in this workspace.", code="job_not_found")
    return job


JobDep = Annotated[Job, Depends(_job)]


@router.get(
    "/{job_id}/events",
    summary="Follow a job",
    response_model=EventPage,
    responses=responses(404)
    | {
        200: {
            "description": "A stream of `state`, `progress`, `log` and `metric` events, or a page of them.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    },
)
async def list_events(
    request: Request,
    caller: Reader,
    job: JobDep,
    services: ServicesDep,
    broadcast: Annotated[Broadcast, Depends(get_broadcast)],
    accept: Annotated[str, Header(description="`application/json` for a page instead of a stream.")] = "*/*",
    last_event_id: Annotated[str | None, Header(description="Resume after this event.")] = None,
    cursor: Annotated[str | None, Query(max_length=20, description="The same, as `next_cursor` of a page.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Most items of a page.")] = 200,
) -> Response:
    """Follow a job: every event after `Last-Event-ID`, then what happens, until its terminal state."""
    after = _number(cursor if cursor is not None else last_event_id)
    if "application/json" in accept and "text/event-stream" not in accept:
        return await _page(services.database, job.id, after, limit)
    admitted = partial(_admitted, services, broadcast, request, caller)
    stream = _stream(services, broadcast, job.id, after, admitted)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


@router.get(
    "/{job_id}/logs",
    summary="Read a job's log",
    response_class=Response,
    responses=responses(404)
    | {200: {"description": "One line each.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def read_logs(job: JobDep, services: ServicesDep) -> Response:
    """Everything the job has logged so far, and its changes of state."""
    return StreamingResponse(_log_lines(services.database, job.id), media_type="text/plain")


def _number(text: str | None) -> int:
    if text is None or text == "":
        return 0
    if not (text.isascii() and text.isdigit() and int(text[:20]) <= _LARGEST):
        raise BadRequest("Last-Event-ID and cursor are the id of an event of this job", code="invalid_event_id")
    return int(text)


async def _page(database: Database, job_id: str, after: int, limit: int) -> Response:
    async with database.transaction() as session:
        rows = await events.after(session, job_id, after, limit=limit + 1)
    items = [EventView.of(row) for row in rows[:limit]]
    page = EventPage(items=items, next_cursor=str(items[-1].id) if len(rows) > limit else None)
    return Response(page.model_dump_json(), media_type="application/json")


async def _admitted(services: Services, broadcast: Broadcast, request: Request, caller: Caller) -> bool:
    """Whether `caller`, who came with `request`, would still be let in with it, as far as anybody can tell."""
    try:
        header = authorization(request)
        return await broadcast.callers.ask(header, partial(recognize, services, header)) == caller
    except Unauthenticated:
        return False
    except (Unavailable, SQLAlchemyError, OSError) as error:
        log.warning("whether a stream's key is still valid is asked again later: %s", error)
        return True


async def _stream(
    services: Services, broadcast: Broadcast, job_id: str, after: int, admitted: Callable[[], Awaitable[bool]]
) -> AsyncIterator[str]:
    yield f"retry: {RETRY_MS}\n\n"
    due = time.monotonic() + services.settings.sse_keepalive_s
    with broadcast.follow(job_id) as follower, STREAMS.track_inprogress():
        while True:
            # Asked by the clock, not after a silence: a job that always has news would never ask.
            if time.monotonic() >= due:
                if not await admitted():
                    return  # the client connects again, and that answer tells it why
                yield ": keep-alive\n\n"
                due = time.monotonic() + services.settings.sse_keepalive_s
            piece = await follower.read(after, partial(_piece, services.database, job_id, after))
            if piece.text:
                yield piece.text
                after = piece.last
                continue
            if piece.over:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(due - time.monotonic()):
                    await follower.news.wait()


@dataclass(frozen=True)
class _Piece:
    """What comes next in a stream: events as `text`, the last of which is `last`; `over`: nothing can follow them."""

    text: str
    last: int
    over: bool


async def _piece(database: Database, job_id: str, after: int) -> _Piece:
    async with database.transaction() as session:
        # The state first: what is appended between the two is then sent rather than missed.
        state = await repository.state(session, job_id)
        rows = await events.after(session, job_id, after, limit=BATCH)
    over = state is None or state in TERMINAL
    return _Piece("".join(map(_sse, rows)), rows[-1].number if rows else after, over)


def _sse(row: JobEvent) -> str:
    # JSON has no line ends of its own, so the data is one line.
    return f"id: {row.number}\nevent: {row.type}\ndata: {json.dumps(row.data, ensure_ascii=False)}\n\n"


async def _log_lines(database: Database, job_id: str) -> AsyncIterator[str]:
    after = 0
    while True:
        async with database.transaction() as session:
            rows = await events.after(session, job_id, after, limit=BATCH, types=("log", "state"))
        for row in rows:
            yield _log_line(row)
            after = row.number
        if len(rows) < BATCH:
            return


def _log_line(row: JobEvent) -> str:
    level, message = str(row.data.get("level", "info")), str(row.data.get("message", ""))
    if row.type == "state":
        message = f"{row.data['state']} (attempt {row.data['attempt']})"
        with suppress(KeyError):
            message += f": {row.data['error']['code']}: {row.data['error']['detail']}"
    # Indented, so that no message can pass for lines of the log.
    message = "\n    ".join(message.splitlines())
    return f"{row.created_at.isoformat(timespec='milliseconds')} {level.upper():7} {message}\n"
