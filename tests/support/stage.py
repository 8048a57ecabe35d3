"""A real database with workspaces, and the quickest way to bring models, data and jobs into any state."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from sqlalchemy import func, select, update

from app.accounts.keys import make_key
from app.config import Settings
from app.db import Database
from app.jobs.leases import Leases
from app.jobs.outcomes import Lease, Offer
from app.jobs.schemas import JobRequest
from app.main import create_app
from app.queue import Queue
from app.tables import Blob, Dataset, Job, JobEvent, Key, Model, Workspace

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
        recipe = {"steps": [{"method": "quantize.dynamic"}]}
        values = {"targets": ["onnxruntime"], "recipe": recipe, **columns}
        if "model_id" in columns:
            asked = {"model_id": columns["model_id"], "recipe": recipe, "targets": values["targets"] or ["torch"]}
            request = JobRequest.model_validate({**asked, **columns.get("request", {})})
            values["request"] = request.model_dump(mode="json")
        return await self._add(Job(workspace_id=workspace_id, **values))

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

    async def offer(self, offer: Offer = CPU) -> None:
        """Makes a worker live."""
        await self.run(self.leases.register_worker, offer)

    async def claim(self, offer: Offer = CPU) -> Lease | None:
        async with self.database.transaction() as session:
            return await self.leases.claim(session, offer)

    async def set(self, job_id: str, **values: Any) -> None:
        async with self.database.transaction() as session:
            await session.execute(update(Job).where(Job.id == job_id).values(**values))

    async def lose(self, job_id: str) -> None:
        """The worker was silent for a lease, and maintenance has found that out."""
        await self.set(job_id, lease_token=None, looked_at=None)

    async def get(self, job_id: str) -> Job:
        async with self.database.transaction() as session:
            return (await session.scalars(select(Job).where(Job.id == job_id))).one()

    async def until(self, job_id: str, state: str) -> None:
        """Waits for a job to get into `state`."""
        for pause in itertools.repeat(0.02):
            if (await self.get(job_id)).state == state:
                return
            await asyncio.sleep(pause)

    async def events(self, job_id: str, kind: str | None = None) -> list[JobEvent]:
        async with self.database.transaction() as session:
            rows = await session.scalars(select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.number))
            return [row for row in rows if kind is None or row.type == kind]

    async def run(self, action: Callable[..., Any], *arguments: Any) -> Any:
        """Runs `action(session, *arguments)` in a transaction of its own."""
        async with self.database.transaction() as session:
            return await action(session, *arguments)

    async def key(self, role: str = "member", workspace_id: str | None = None) -> dict[str, str]:
        """Headers of a request with a fresh key."""
        made = make_key(self.settings.key_pepper)
        workspace_id = workspace_id or self.workspaces[0]
        await self._add(Key(workspace_id=workspace_id, name=role, role=role, prefix=made.prefix, hash=made.hash))
        return {"Authorization": f"Bearer {made.text}"}

    async def _add(self, row: Any) -> str:
        async with self.database.transaction() as session:
            session.add(row)
            await session.flush()
            return str(row.id)


@asynccontextmanager
async def open_stage(settings: Settings) -> AsyncIterator[Stage]:
    """A stage with one workspace on a migrated database."""
    database = Database(settings)
    queue = Queue(settings)
    stage = Stage(database, settings, Leases(settings, queue), queue)
    await stage.workspace("first")
    yield stage
    await database.close()


@asynccontextmanager
async def serving(stage: Stage, port: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API, with a member's key, over a real socket of uvicorn."""
    config = uvicorn.Config(
        create_app(stage.settings), host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        if task.done():
            await task
        await asyncio.sleep(0.01)
    url, headers = f"http://127.0.0.1:{port}", await stage.key()
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=20, trust_env=False) as client:
        yield client
    server.should_exit = True
    await task
