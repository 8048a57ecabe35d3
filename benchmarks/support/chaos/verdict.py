"""What has to hold afterwards, whatever happened; each fault is a sentence."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

from modelpress import Client
from sqlalchemy import create_engine, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.tables import Artifact, Job, JobEvent
from app.tables.jobs import TERMINAL
from benchmarks.support.chaos.customers import Sold
from benchmarks.support.chaos.deployment import LEASE_S, Deployment


def unfinished(database_url: str) -> int | None:
    """Number of jobs and checks that are not over; None where the database is still away."""
    engine = create_engine(database_url)
    try:
        with Session(engine) as session:
            return len(session.scalars(select(Job.id).where(Job.state.not_in(TERMINAL))).all())
    except OperationalError:
        return None
    finally:
        engine.dispose()


def faults(deployment: Deployment, sold: Sequence[Sold], client: Client) -> Iterator[str]:
    """Everything that is wrong."""
    engine = create_engine(deployment.settings.database_url)
    with Session(engine) as session:
        jobs = {job.id: job for job in session.scalars(select(Job))}
        events: dict[str, list[JobEvent]] = {job_id: [] for job_id in jobs}
        for event in session.scalars(select(JobEvent).order_by(JobEvent.job_id, JobEvent.number)):
            events[event.job_id].append(event)
        artifacts = session.scalars(select(Artifact)).all()
        for job_id, job in jobs.items():
            yield from _history(job, events[job_id])
        for one in sold:
            yield from _end(one, jobs.get(one.job_id), [a for a in artifacts if a.job_id == one.job_id])
            yield from _followed(one, events.get(one.job_id, []))
        yield from _twice(sold)
        for artifact in artifacts:
            yield from _artifact(artifact, client, deployment.folder)
    engine.dispose()
    left = [path.name for path in (deployment.folder / "work" / "attempts").glob("*")]
    if left:
        yield f"folders of attempts are left: {', '.join(left)}"


def states(sold: Sequence[Sold], database_url: str) -> Counter[str]:
    """How the jobs ended."""
    engine = create_engine(database_url)
    with Session(engine) as session:
        found = Counter(session.scalars(select(Job.state).where(Job.id.in_([one.job_id for one in sold]))))
    engine.dispose()
    return found


def _history(job: Job, events: Sequence[JobEvent]) -> Iterator[str]:
    """Numbered without gaps; attempts that follow each other and never overlap."""
    numbers = [event.number for event in events]
    if numbers != list(range(1, job.last_event + 1)):
        yield f"{job.id}: events {numbers} are not 1 to {job.last_event}"
    told = [event for event in events if event.type == "state"]
    if told and told[-1].data["state"] != job.state:
        yield f"{job.id}: is {job.state}, its last event says {told[-1].data['state']}"
    for before, after in pairwise(told):
        asked_again = (before.data["state"], after.data["state"]) == ("failed", "queued")  # `Customers.insist`
        if before.data["state"] in TERMINAL and not asked_again:
            yield f"{job.id}: went on after {before.data['state']}"
        if before.data["state"] == "running" and after.data["state"] == "running":
            # Claimed again without having been given back: only an expired lease allows that.
            silence = after.created_at - before.created_at
            if silence < timedelta(seconds=LEASE_S):
                yield f"{job.id}: claimed twice within {silence.total_seconds():.1f} s, less than a lease"
            if after.data["attempt"] != before.data["attempt"] + 1:
                yield f"{job.id}: attempt {after.data['attempt']} follows {before.data['attempt']}"


def _end(one: Sold, job: Job | None, artifacts: Sequence[Artifact]) -> Iterator[str]:
    if job is None:
        yield f"{one.order.name}: its job {one.job_id} is lost"
        return
    if job.state not in one.order.ends:
        yield f"{one.order.name}: {job.id} ended {job.state} {job.error}, not {' or '.join(one.order.ends)}"
    code = (job.error or {}).get("code")
    if job.state == "failed" and code != one.order.code:
        yield f"{one.order.name}: {job.id} failed with {code}, not {one.order.code}"
    measured = job.state == "succeeded" or code == "limits_not_met"
    if len(artifacts) != int(measured):
        yield f"{one.order.name}: {job.id} ended {job.state} with {len(artifacts)} artifacts"


def _followed(one: Sold, events: Sequence[JobEvent]) -> Iterator[str]:
    """A stream that was cut and resumed has brought every event once, as it is in the table."""
    if not one.order.followed:
        return
    seen = [(event.type, dict(event.data)) for event in one.events]
    kept = [(event.type, event.data) for event in events]
    if seen != kept:
        first = next((n for n, (came, stored) in enumerate(zip(seen, kept, strict=False)) if came != stored), None)
        where = "" if first is None else f"; number {first + 1} came as {seen[first]}, and is {kept[first]}"
        yield f"{one.order.name}: {len(seen)} events came over the stream, the table has {len(kept)}{where}"


def _twice(sold: Sequence[Sold]) -> Iterator[str]:
    for job_id, count in Counter(one.job_id for one in sold).items():
        if count > 1:
            yield f"{job_id} was given to {count} customers"


def _artifact(artifact: Artifact, client: Client, folder: Path) -> Iterator[str]:
    """What is downloaded has the digest that was promised (the client checks it too), and can be read."""
    path = client.artifacts.download(artifact.id, folder / f"{artifact.id}.bin")
    if hashlib.sha256(path.read_bytes()).hexdigest() != artifact.sha256:
        yield f"{artifact.id}: its bytes are not those of its digest"
    path.unlink()
