"""From a request to bytes in the store with a check on its way: what models and datasets have in common."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from app import tracing
from app.accounts import quotas
from app.accounts.caller import Caller
from app.accounts.idempotency import digest_of
from app.accounts.routes import get_once
from app.db import after_commit
from app.errors import Conflict, Invalid
from app.storage import Stored
from app.tables import Dataset, Job, Model
from app.uploads import assembly, repository, sources
from app.uploads.keep import publish
from app.uploads.receive import least_size, receive_form
from app.uploads.schemas import Source, UploadFields
from app.web.services import Services

Fields = TypeVar("Fields", bound=UploadFields)


@dataclass(frozen=True)
class Arrived(Generic[Fields]):
    """A whole, acceptable upload, in the store."""

    fields: Fields
    filename: str
    file: Stored


@asynccontextmanager
async def receive(
    request: Request, services: Services, caller: Caller, kind: type[Fields]
) -> AsyncIterator[Arrived[Fields]]:
    """Takes an upload in either form, published in the store under a fresh blob."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
        fields, source = _as_json(await request.body(), kind)
        async with quotas.upload_slot(services, caller.workspace_id):
            fetched = await _fetch(services, caller.workspace_id, source)
        yield Arrived(fields, *fetched)
        return
    once = get_once(request)
    # What was answered before is in the store already: it must not be refused for want of room before it is recognized.
    if once is None or not once.answered:
        async with services.database.transaction() as session:
            await quotas.hold_announced(session, services.settings, caller.workspace_id, least_size(request))
    async with (
        quotas.upload_slot(services, caller.workspace_id),
        receive_form(request, services, caller.workspace_id) as received,
    ):
        fields = _validated(kind, received.fields)
        if once is not None:
            once.settle(
                digest_of(request, json.dumps([received.fields, received.file.sha256], sort_keys=True).encode())
            )
        async with services.database.transaction() as session:
            await quotas.refuse_bytes(session, services.settings, caller.workspace_id, received.file)
        await publish(services.database, received.staged, caller.workspace_id)
    # The slot is given back before the caller's transaction holds a connection: to wait for a second one while holding
    # the first would lock up a pool that many do this with at once.
    yield Arrived(fields, received.filename, received.file)


async def queue_check(session: AsyncSession, services: Services, upload: Model | Dataset) -> None:
    """Has a worker read the upload."""
    check = Job(
        workspace_id=upload.workspace_id,
        queue="checks",
        name=upload.name,
        run_timeout_s=services.settings.check_run_s,
        max_attempts=services.settings.check_attempts,
        trace_parent=tracing.traceparent(),
    )
    if isinstance(upload, Model):
        check.kind, check.model_id = "check_model", upload.id
    else:
        check.kind, check.calibration_dataset_id = "check_dataset", upload.id
    await repository.insert_check(session, check)
    after_commit(session, partial(services.queue.look, "checks"))


async def refuse_while_used(session: AsyncSession, input_id: str) -> None:
    """Raises `Conflict` (``object_in_use``) while a job that is not over reads this model or dataset."""
    jobs = await repository.jobs_in_work(session, input_id)
    if jobs:
        named = ", ".join(jobs[:3]) + (" ..." if len(jobs) > 3 else "")
        raise Conflict(f"{input_id} is used by {named}; cancel these or wait for their end.", code="object_in_use")


def _as_json(body: bytes, kind: type[Fields]) -> tuple[Fields, Source]:
    """The JSON form: the same fields, and where the bytes are."""
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestValidationError(
            [{"type": "json_invalid", "loc": ("body",), "ctx": {"error": str(error)}}]
        ) from error
    if not isinstance(raw, dict):
        raise Invalid("The body must be a JSON object.")
    try:
        source = Source.model_validate(raw)
    except ValidationError as error:
        raise _as_request_error(error) from error
    return _validated(kind, {name: value for name, value in raw.items() if name not in Source.model_fields}), source


async def _fetch(services: Services, workspace_id: str, source: Source) -> tuple[str, Stored]:
    """Name and bytes of what `source` names."""
    if source.upload_id is not None:
        return await assembly.finished(services, workspace_id, source.upload_id)
    return await sources.take(services, workspace_id, source.source or "")


def _validated(kind: type[Fields], fields: Mapping[str, object]) -> Fields:
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise _as_request_error(error) from error


def _as_request_error(error: ValidationError) -> RequestValidationError:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    return RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in faults])
