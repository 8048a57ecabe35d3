"""An artifact as a finished job leaves it."""

from pathlib import Path
from typing import Any

import pytest

from app.config import Settings
from app.tables import Artifact, Job, Metric
from app.uploads.keep import keep_file
from tests.support.artifacts import DATA, MANIFEST


@pytest.fixture
def settings(settings: Settings) -> Settings:
    # What is left of a rate differs from one answer to the next, and HEAD and GET are to say the same.
    return settings.model_copy(update={"rate_limit_per_s": 0.0})


@pytest.fixture
def make_artifact(tmp_path: Path) -> Any:
    """Makes one, of `DATA`."""

    async def make(
        api: Any,
        manifest: dict[str, Any] = MANIFEST,
        figures: Any = None,
        model_id: str = "mdl_x",
        data: bytes = DATA,
        **columns: Any,
    ) -> Artifact:
        workspace_id = await api.workspace("ours")
        (tmp_path / "made").write_bytes(data)
        stored = await keep_file(api.services.database, api.services.store, workspace_id, tmp_path / "made")
        async with api.services.database.transaction() as session:
            job = Job(workspace_id=workspace_id, model_id=model_id, state="succeeded")
            session.add(job)
            await session.flush()
            if figures is not None:
                session.add(Metric(job_id=job.id, name="artifacts", target="onnxruntime", value=figures))
            usual = {"target": "onnxruntime", "format": "onnx", "filename": 'we"ird ñ.onnx', "manifest": manifest}
            artifact = Artifact(
                workspace_id=workspace_id,
                job_id=job.id,
                size_bytes=stored.size_bytes,
                sha256=stored.sha256,
                **{**usual, **columns},
            )
            session.add(artifact)
        return artifact

    return make


@pytest.fixture
async def artifact(api: Any, make_artifact: Any) -> Artifact:
    """One of the service of `api`."""
    made: Artifact = await make_artifact(api)
    return made
