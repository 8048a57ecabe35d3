"""A real database with one workspace, and shorthands to fill it."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from app.config import Settings
from app.db import Database
from app.jobs.leases import Leases
from app.jobs.outcomes import Lease, Offer
from app.queue import Queue
from app.tables import Blob, Dataset, Job, JobEvent, Model, Workspace

DIGEST = "0" * 64
CPU = Offer(id="worker-cpu", hostname="host", queue="cpu", targets=("onnxruntime", "openvino", "torch"))

CHECKS = Offer(id="worker-checks", hostname="host", queue="checks")


@dataclass
class Stage:
    """A database, and the quickest way to bring jobs into any state."""

    database: Database
    settings: Settings
    leases: Leases
    queue: Queue
    checks: Offer = CHECKS
    workspaces: list[str] = field(default_factory=list)

    async def workspace(self, name: str) -> str:
        async with self.database.transaction() as session:
            workspace = Workspace(name=name)
            session.add(workspace)
            await session.flush()
            session.add(Blob(workspace_id=workspace.id, sha256=DIGEST, size_bytes=1))
        self.workspaces.append(workspace.id)
        return workspace.id

    async def model(self, state: str = "ready", workspace_id: str | None = None, **columns: Any) -> str:
        values = {"name": "m", "filename": "m.pt2", "size_bytes": 1, "sha256": DIGEST, "state": state, **columns}
        return await self._add(Model(workspace_id=workspace_id or self.workspaces[0], **values))

    async def dataset(self, state: str = "ready", workspace_id: str | None = None, **columns: Any) -> str:
        values = {"name": "d", "filename": "d.npz", "kind": "tensors", "size_bytes": 1, "sha256": DIGEST, **columns}
        return await self._add(Dataset(workspace_id=workspace_id or self.workspaces[0], state=state, **values))

    async def job(self, workspace_id: str | None = None, **columns: Any) -> str:
        workspace_id = workspace_id or self.workspaces[0]
        if columns.get("kind", "compress") == "compress" and "model_id" not in columns:
            columns["model_id"] = await self.model(workspace_id=workspace_id)
        return await self._add(Job(workspace_id=workspace_id, **{"targets": ["onnxruntime"], **columns}))

    async def in_state(self, state: str, **columns: Any) -> tuple[str, Lease | None]:
        """A job brought to `state` as a worker and a user would, with the lease that it has or last had."""
        job_id = await self.job(**columns)
        lease = None
        if state != "queued":
            lease = await self.claim()
            assert lease is not None
            assert lease.job_id == job_id
        if state not in ("queued", "running"):
            await self.set(job_id, state=state)
        if state in ("succeeded", "failed", "canceled"):
            await self.set(job_id, lease_token=None, lease_expires_at=None, finished_at=func.now())
        return job_id, lease

    async def claim(self, offer: Offer = CPU) -> Lease | None:
        async with self.database.transaction() as session:
            return await self.leases.claim(session, offer)

    async def set(self, job_id: str, **values: Any) -> None:
        async with self.database.transaction() as session:
            await session.execute(update(Job).where(Job.id == job_id).values(**values))

    async def expire(self, job_id: str) -> None:
        await self.set(job_id, lease_expires_at=func.now() - timedelta(seconds=1))

    async def get(self, job_id: str) -> Job:
        async with self.database.transaction() as session:
            return (await session.scalars(select(Job).where(Job.id == job_id))).one()

    async def events(self, job_id: str, kind: str | None = None) -> list[JobEvent]:
        async with self.database.transaction() as session:
            rows = await session.scalars(select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.number))
            return [row for row in rows if kind is None or row.type == kind]

    async def run(self, action: Callable[..., Any], *arguments: Any) -> Any:
        """Runs `action(session, *arguments)` in a transaction of its own."""
        async with self.database.transaction() as session:
            return await action(session, *arguments)

    async def _add(self, row: Any) -> str:
        async with self.database.transaction() as session:
            session.add(row)
            await session.flush()
            return str(row.id)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def settings(database_url: str, broker_url: str, tmp_path: Any) -> Settings:
    return Settings(
        database_url=database_url,
        broker_url=broker_url,
        store_url=f"file://{tmp_path}/store",
        key_pepper="pepper",
        sse_keepalive_s=0.3,
        _env_file=None,
    )


@pytest.fixture
async def stage(settings: Settings) -> AsyncIterator[Stage]:
    database = Database(settings)
    queue = Queue(settings)
    stage = Stage(database, settings, Leases(settings, queue), queue)
    await stage.workspace("first")
    yield stage
    await database.close()
