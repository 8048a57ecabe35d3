"""Jobs: created, followed live through broken connections, waited for, ended."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import httpx

from modelpress.errors import ConnectionFailed, NoArtifact
from modelpress.live import Live
from modelpress.nouns import AsyncArtifacts, AsyncLiveArtifact, Owned
from modelpress.polling import poll
from modelpress.requests import Call, JobRequest, segment
from modelpress.sse import EventParser
from modelpress.views import TERMINAL, Artifact, Estimate, Event, Job

STEADY_S = 5.0


class AsyncLiveJob(Job, Live["AsyncJobs"]):
    """A job of an `AsyncClient`. What it holds stays as it was answered; `refresh` and `wait` answer a newer one."""

    async def refresh(self) -> "AsyncLiveJob":
        """The job as it is now."""
        return await self._noun.get(self.id)

    async def wait(self, *, timeout_s: float | None = None) -> "AsyncLiveJob":
        """The job once it has finished, whatever its state; see `jobs.wait`."""
        return await self._noun.wait(self.id, timeout_s=timeout_s)

    async def events(self, *, after: str | None = None) -> AsyncGenerator[Event]:
        """Its events until it has finished; see `jobs.events`."""
        async with aclosing(self._noun.events(self.id, after=after)) as events:
            async for event in events:
                yield event

    async def follow(self) -> "AsyncLiveJob":
        """Shows its progress until it has finished, in a notebook or a terminal, and answers the finished job."""
        from modelpress import notebook

        with notebook.screen() as screen:
            async for event in self.events():
                screen.event(event)
        return await self.refresh()

    async def logs(self) -> str:
        """Its log so far, as text."""
        return await self._noun.logs(self.id)

    async def cancel(self) -> "AsyncLiveJob":
        """Asks it to end; `Conflict` (job_already_finished) where it has."""
        return await self._noun.cancel(self.id)

    async def retry(self) -> "AsyncLiveJob":
        """A new attempt of a failed or canceled job, from its last checkpoint."""
        return await self._noun.retry(self.id)

    async def delete(self) -> None:
        """Deletes it with its artifacts; `Conflict` while it runs."""
        await self._noun.delete(self.id)

    def artifact(self, target: str | None = None) -> AsyncLiveArtifact:
        """What it made for `target`; without one, where it has just one target.

        Raises:
            NoArtifact: there is none; the message says what there is.
        """
        live = AsyncLiveArtifact.parse(chosen(self, target).raw)
        live._bind(self._noun._artifacts)
        return live


def chosen(job: Job, target: str | None) -> Artifact:
    """The artifact of `job` for `target`, or its only one."""
    made = job.artifacts or ()
    fitting = [one for one in made if target in (None, one.target)]
    if len(fitting) == 1:
        return fitting[0]
    there = ", ".join(str(one.target) for one in made) or "none"
    if not job.finished:
        raise NoArtifact(f"{job.id} is {job.state}, its artifacts are made at its end: call wait() and ask its answer")
    asked = "one target has to be named" if target is None and made else f"nothing was made for {target!r}"
    raise NoArtifact(f"{job.id} is {job.state}: {asked}; it has artifacts for: {there}")


class AsyncJobs(Owned[AsyncLiveJob]):
    """`/v1/jobs`."""

    path, view = "jobs", AsyncLiveJob

    @property
    def _artifacts(self) -> AsyncArtifacts:
        """The noun of what jobs make."""
        return AsyncArtifacts(self._session)

    async def create(self, request: JobRequest) -> AsyncLiveJob:
        """Queues a job; `InvalidRequest` names each fault of the request."""
        return self._parse(await self._session.json(Call("POST", "jobs", json=request.body())))

    async def estimate(self, request: JobRequest) -> Estimate:
        """What the job would need, without queueing it."""
        return Estimate.parse(await self._session.json(Call("POST", "jobs:estimate", json=request.body())))

    async def cancel(self, id: str) -> AsyncLiveJob:
        """Asks it to end; `Conflict` (job_already_finished) where it has."""
        return await self._act(id, "cancel")

    async def retry(self, id: str) -> AsyncLiveJob:
        """A new attempt of a failed or canceled job, from its last checkpoint."""
        return await self._act(id, "retry")

    async def _act(self, id: str, action: str) -> AsyncLiveJob:
        data = await self._session.json(Call("POST", f"jobs/{segment(id)}:{action}"))
        return await self.get(id) if data is None else self._parse(data)

    async def logs(self, id: str) -> str:
        """Its log so far, as text."""
        call = Call("GET", f"jobs/{segment(id)}/logs", headers={"Accept": "text/plain"})
        return await self._session.text(call)

    async def wait(self, id: str, *, timeout_s: float | None = None) -> AsyncLiveJob:
        """Waits until it has finished, and answers it whatever its state; look at `state`, `error` and `gate`.

        Raises:
            WaitTimeout: it has not finished after `timeout_s` seconds; it goes on.
        """
        return await poll(self._session, lambda: self.get(id), lambda job: job.finished, timeout_s)

    async def events(self, id: str, *, after: str | None = None) -> AsyncGenerator[Event]:
        """Its events from the start, or after the event with id `after`, until it has finished.

        A broken stream is resumed with `Last-Event-ID`, so that no event is lost and none comes twice.

        Raises:
            ConnectionFailed: the stream broke at once, without any event, more often than the retries allow.
        """
        last, failures, state = after, 0, ""
        while True:
            parser, seen, broken, began = EventParser(last), False, None, time.monotonic()
            try:
                async with aclosing(self._stream(id, parser)) as events:
                    async for event in events:
                        last, seen, failures = parser.last_id, True, 0
                        state = str(event.data.get("state", "")) if event.type == "state" else state
                        yield event
            except httpx.TransportError as error:
                broken = error
            if state in TERMINAL or (not seen and not broken and (await self.get(id)).finished):
                return
            # A stream that held for a while is no failure, however quiet: the job may wait in the queue for hours.
            failures = 1 if time.monotonic() - began > STEADY_S else failures + 1
            pause = self._session.retries.pause(failures, parser.retry_s)
            if pause is None and broken:
                raise ConnectionFailed(f"the events of {id} broke off: {broken!r}") from broken
            await self._session.wire.sleep(self._session.retries.cap_s if pause is None else pause)

    async def _stream(self, id: str, parser: EventParser) -> AsyncGenerator[Event]:
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity", "Cache-Control": "no-store"}
        if parser.last_id is not None:
            headers["Last-Event-ID"] = parser.last_id
        async with (
            self._session.stream(Call("GET", f"jobs/{segment(id)}/events", headers=headers, stream=True)) as response,
            aclosing(self._session.wire.pieces(response)) as pieces,
        ):
            async for piece in pieces:
                for event in parser.feed(piece):
                    yield event
