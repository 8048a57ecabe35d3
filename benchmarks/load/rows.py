"""What is in the database: a finished job as large as a real one, a running one, and a hundred thousand others."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import uuid4

from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import Database
from app.jobs.outcomes import Lease
from app.jobs.schemas import JobRequest
from app.tables import Artifact, Blob, Job, Metric
from benchmarks.load.site import Site

T = TypeVar("T")

RECIPE: dict[str, Any] = {"steps": [{"method": "quantize.static", "weights": "int8", "activations": "int8"}]}
TARGETS = ["onnxruntime", "openvino"]
DIGEST = "0" * 64
#: Weighted layers of a ResNet-18.
LAYERS = 21
FIGURES = {
    "size_bytes": 44_870_000,
    "accuracy": {"value": 0.9227, "samples": 4000, "drop": {"value": 0.0003, "low": -0.0011, "high": 0.0018}},
    "fidelity": {"sqnr_db": 37.9, "agreement": 0.991, "kl": 0.0021},
    "latency_ms": {"p50": 4.01, "p90": 4.2, "p99": 4.61, "mean": 4.03, "runs": 200, "batch": 1},
    "peak_memory_bytes": 161_000_000,
}

#: What all jobs read and have made, so that maintenance finds nothing to mend.
_FILES = """
INSERT INTO blobs (workspace_id, sha256, size_bytes) SELECT id, :digest, 1 FROM workspaces ON CONFLICT DO NOTHING;
INSERT INTO models (id, workspace_id, name, filename, size_bytes, sha256, state)
VALUES ('mdl_load', :workspace, 'load', 'load.pt2', 1, :digest, 'ready')
"""
#: One workspace in two is the one that is asked; one job in ten is named and tagged; one in fifty is not over.
_MANY = """
INSERT INTO jobs (id, workspace_id, kind, name, tags, request, recipe, targets, model_id, state, attempt,
                  created_at, queued_at, started_at, finished_at, lease_token, lease_expires_at)
SELECT 'job_load' || n,
       CASE WHEN n % 2 = 0 THEN CAST(:workspace AS text) ELSE 'wsp_load' || 1 + n % 3 END,
       CASE WHEN n % 20 = 19 THEN 'check_model' ELSE 'compress' END,
       'nightly-' || n / 2 % 500,
       jsonb_build_object('team', 'team-' || n / 2 % 20, 'commit', md5(CAST(n / 200 AS text))),
       CAST(:request AS jsonb), CAST(:recipe AS jsonb), '["onnxruntime"]', 'mdl_load', state, 1,
       at, CASE WHEN state = 'queued' THEN now() ELSE at END, at,
       CASE WHEN state IN ('queued', 'running') THEN NULL ELSE at END,
       CASE WHEN state = 'running' THEN 'lease' END, CASE WHEN state = 'running' THEN now() END
FROM (SELECT n, now() - make_interval(secs => 60 * (:count - n)) AS at,
             CASE WHEN n / 2 % 50 = 0 THEN 'queued' WHEN n / 2 % 1000 = 1 THEN 'running'
                  WHEN n / 2 % 10 = 3 THEN 'failed' WHEN n / 2 % 25 = 4 THEN 'canceled' ELSE 'succeeded' END AS state
      FROM generate_series(1, :count) AS n) AS made
"""
_METRICS = """
INSERT INTO metrics (job_id, name, target, value)
SELECT jobs.id, metric, 'onnxruntime', CAST(:figures AS jsonb)
FROM jobs, unnest(ARRAY['baseline', 'artifacts']) AS metric WHERE state = 'succeeded' AND kind = 'compress'
"""
_ARTIFACTS = """
INSERT INTO artifacts (id, workspace_id, job_id, target, format, filename, size_bytes, sha256, manifest)
SELECT 'art_' || id, workspace_id, id, 'onnxruntime', 'onnx', 'load.int8.onnx', 1, :digest, recipe
FROM jobs WHERE state = 'succeeded' AND kind = 'compress'
"""


def within(site: Site, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    """What `work` answers, in a transaction of its own."""

    async def run() -> T:
        database = Database(site.settings, pooled=False)
        try:
            async with database.transaction() as session:
                return await work(session)
        finally:
            await database.close()

    return asyncio.run(run())


def finished_job(site: Site) -> str:
    """Id of a job that succeeded, whose documents are as many and as large as those of a ResNet-18 in int8."""

    async def work(session: AsyncSession) -> str:
        job = _job(site, state="succeeded", attempt=1, progress=1.0, gate={"passed": True, "checks": []})
        job.started_at = job.finished_at = datetime.now(UTC) + timedelta(seconds=1)
        session.add(Blob(workspace_id=site.workspace_id, sha256=DIGEST, size_bytes=1))
        session.add(job)
        await session.flush()
        for target in TARGETS:
            values = {"target": target, "format": "onnx", "filename": f"{target}.onnx", "size_bytes": 11_340_000}
            manifest: dict[str, Any] = {"recipe": RECIPE}
            owner = {"workspace_id": site.workspace_id, "job_id": job.id, "sha256": DIGEST}
            session.add(Artifact(**owner, **values, manifest=manifest))
        for name, target, value in _documents():
            session.add(Metric(job_id=job.id, name=name, target=target, value=value))
        return job.id

    return within(site, work)


def running_job(site: Site) -> Lease:
    """The lease of a job that runs, for an hour."""
    expires_at, token = datetime.now(UTC) + timedelta(hours=1), uuid4().hex

    async def work(session: AsyncSession) -> Lease:
        job = _job(site, state="running", attempt=1, lease_token=token, started_at=datetime.now(UTC))
        job.lease_expires_at = expires_at
        session.add(job)
        await session.flush()
        return Lease(
            job_id=job.id,
            token=token,
            workspace_id=site.workspace_id,
            kind="compress",
            queue=None,
            attempt=1,
            max_attempts=1,
            run_timeout_s=3600,
            recipe=RECIPE,
            targets=TARGETS,
            request={},
            inputs={},
        )

    return within(site, work)


def many_jobs(site: Site, count: int) -> None:
    """Fills the table; half of `count` are this site's workspace's. Vacuumed, as PostgreSQL does by itself in time."""

    async def work(session: AsyncSession) -> None:
        names = ", ".join(f"('wsp_load{number}', 'load{number}')" for number in (1, 2, 3))
        await session.execute(text(f"INSERT INTO workspaces (id, name) VALUES {names}"))
        request, recipe = _request().model_dump_json(), '{"steps": [{"method": "quantize.static"}]}'
        values = {"workspace": site.workspace_id, "count": count, "request": request, "recipe": recipe}
        for statement in _FILES.split(";"):
            await session.execute(text(statement), {"digest": DIGEST, "workspace": site.workspace_id})
        await session.execute(text(_MANY), values)
        await session.execute(text(_METRICS), {"figures": json.dumps(FIGURES)})
        await session.execute(text(_ARTIFACTS), {"digest": DIGEST})

    within(site, work)
    engine = create_engine(site.settings.database_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("VACUUM ANALYZE"))
    engine.dispose()


def _job(site: Site, **columns: Any) -> Job:
    request = _request().model_dump(mode="json")
    values = {"targets": TARGETS, "recipe": RECIPE, "model_id": "mdl_load", "request": request, **columns}
    return Job(workspace_id=site.workspace_id, kind="compress", **values)


def _request() -> JobRequest:
    asked = {"model_id": "mdl_load", "recipe": RECIPE, "targets": TARGETS, "name": "load", "tags": {"team": "vision"}}
    return JobRequest.model_validate(asked)


def _documents() -> list[tuple[str, str, Any]]:
    layers = [
        {
            "name": f"layer{number // 4}.{number % 4}.conv",
            "op": "conv",
            "bits": {"weights": 8, "activations": 8},
            "sqnr_db": 38.25 + number / 7,
            "range": [-3.2174 - number / 3, 3.1944 + number / 3],
            "parameters": 36_864 * (number + 1),
        }
        for number in range(LAYERS)
    ]
    steps = [{"method": "quantize.static", "seconds": 1.51, "notes": []}]
    whole = {"layers": layers, "steps": steps, "before": FIGURES, "notes": []}
    per_target = [(name, target, FIGURES) for name in ("baseline", "artifacts") for target in TARGETS]
    return [*per_target, *((name, "", value) for name, value in whole.items())]
