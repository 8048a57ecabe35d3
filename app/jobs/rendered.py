"""Jobs as JSON, made once for all who poll one that does not change; whether it has is asked for all at once."""

from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from app.db import Database
from app.jobs import repository
from app.jobs.schemas import JobView
from app.together import Together
from app.web.fields import is_storable

#: Bytes that are kept; past them, all are forgotten.
MOST_BYTES = 32 * 2**20
#: Bytes that Python adds to each body and its key.
_OVERHEAD = 1024


class Wanted(NamedTuple):
    """Which job, for whom, and what of the request says at which address the client sees this service: links begin
    with it."""

    workspace_id: str
    job_id: str
    address: Hashable


@dataclass(frozen=True)
class _Body:
    version: str
    json: bytes


class Rendered:
    """The bodies that one API process has made of jobs.

    A body is of the version that its job's row had before it was made. Everything that it shows is written together
    with that row, but the place in the queue: queued jobs are made anew each time.
    """

    def __init__(self, database: Database) -> None:
        self._line = database.line(repository.VERSIONS)
        self._version = Together(self._versions)
        self._bodies: dict[Wanted, _Body] = {}
        self._bytes = 0

    async def json(self, wanted: Wanted, render: Callable[[], Awaitable[JobView]]) -> bytes:
        """The job as JSON, as it is now; made by `render` where it has changed. Raises what that raises."""
        version = await self._version(wanted)
        kept = self._bodies.get(wanted)
        if kept is not None and kept.version == version:
            return kept.json
        body = (await render()).model_dump_json().encode()
        if version is not None:
            self._keep(wanted, _Body(version, body))
        return body

    def _keep(self, wanted: Wanted, body: _Body) -> None:
        before = self._bodies.pop(wanted, None)
        self._bytes += _size(wanted, body) - (_size(wanted, before) if before is not None else 0)
        if self._bytes > MOST_BYTES:
            self._bodies.clear()
            self._bytes = _size(wanted, body)
        self._bodies[wanted] = body

    async def _versions(self, wanted: Sequence[Wanted]) -> Sequence[str | None]:
        ids = {one.job_id for one in wanted if is_storable(one.job_id)}
        rows = await self._line.ask(ids=list(ids))
        found = {(workspace_id, job_id): version for workspace_id, job_id, version in rows}
        return [found.get((one.workspace_id, one.job_id)) for one in wanted]


def _size(wanted: Wanted, body: _Body) -> int:
    """Bytes that are held for a body: the address in its key is the client's to choose, and as long as it likes."""
    return _OVERHEAD + len(repr(wanted)) + len(body.json)
