"""What is used, by whom it can be seen, and which walls stand on which worker."""

from typing import Any

import pytest

from app.tables import Job, Worker

pytestmark = pytest.mark.anyio


async def test_usage(api: Any) -> None:
    reader, operator, member = await api.client("reader"), await api.client("operator", "theirs"), await api.client()
    model, _ = await api.upload(member), await api.upload(member, "datasets", name="d")
    async with api.services.database.transaction() as session:
        for state in ("queued", "queued", "running", "canceling", "failed"):
            session.add(Job(workspace_id=await api.workspace("ours"), model_id=model["id"], state=state))
        sandbox = {"walls": ["limits", "seccomp"], "missing": {"landlock": "not in this kernel"}}
        session.add(Worker(id="w", hostname="h", queue="cpu", targets=["torch"], capabilities={"sandbox": sandbox}))
        session.add(
            Worker(id="old", hostname="h", queue="cpu", targets=[], capabilities={}, seen_at="2020-01-01T00:00Z")
        )
    seen = (await reader.get("/v1/usage")).json()
    assert seen["jobs"] == {"queued": 2, "running": 2}
    assert (seen["models"], seen["datasets"], seen["artifacts"], seen["uploads"]) == (1, 1, 0, 0)
    assert seen["stored_bytes"] == 2 * model["size_bytes"]
    assert seen["limits"] == {
        "stored_bytes": 0, "jobs": 0, "uploads": 0, "requests_per_s": 50.0, "requests_burst": 300,
    }  # fmt: skip
    assert seen["workers"] is None
    elsewhere = (await operator.get("/v1/usage")).json()
    assert (elsewhere["models"], elsewhere["stored_bytes"]) == (0, 0)
    (worker,) = elsewhere["workers"]
    assert (worker["id"], worker["walls"]) == ("w", ["limits", "seccomp"])
    assert worker["missing_walls"] == {"landlock": "not in this kernel"}
    path = f"/v1/usage?workspace_id={await api.workspace('ours')}"
    assert (await operator.get(path)).json()["models"] == 1
    theirs = await api.client("admin", "theirs")
    assert (await theirs.get(path)).json()["code"] == "workspace_not_found"
    assert (await operator.get("/v1/usage?workspace_id=wsp_x")).status_code == 404
