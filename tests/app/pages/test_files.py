"""Pages of models and datasets: lists, what each is, and lineage."""

from typing import Any

import pytest
from sqlalchemy import update

from app.jobs.schemas import JobRequest
from app.tables import Artifact, Blob, Dataset, Job, Metric, Model

pytestmark = pytest.mark.anyio
FACTS = {
    "format": "pt2",
    "inputs": [{"name": "image", "dtype": "float32", "shape": ["batch", 3, 32, 32]}],
    "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", 10]}],
    "parameters": 1_234_567,
    "layers": [{"name": "head", "kind": "Linear", "parameters": 5130, "macs": 5120}],
    "notes": ["one thing to know"],
}


async def _set(api: Any, table: Any, row_id: str, **values: Any) -> None:
    async with api.services.database.transaction() as session:
        await session.execute(update(table).where(table.id == row_id).values(**values))


async def test_empty_lists_say_what_to_do(client: Any, api: Any) -> None:
    assert "No models yet" in (await client.get("/models")).text
    assert "No data yet" in (await client.get("/datasets")).text
    reader = await api.client("reader")
    assert 'type="file"' in (await client.get("/models")).text
    assert 'type="file"' not in (await reader.get("/models")).text


async def test_lists_filter_and_go_on(api: Any, client: Any) -> None:
    for name in ("first", "second", "third"):
        await api.upload(client, "models", name=name)
    page = (await client.get("/models?name=second&state=")).text
    assert "second</a>" in page
    assert "third</a>" not in page
    assert "No model matches" in (await client.get("/models?name=&state=ready")).text
    page = (await client.get("/models?limit=2")).text
    assert "first</a>" not in page
    older = page.split("cursor=")[1].split('"')[0]
    assert "first</a>" in (await client.get(f"/models?cursor={older}")).text
    assert (await client.get("/models?state=unknown", headers={"Accept": "text/html"})).status_code == 422


async def test_what_a_model_is(api: Any, client: Any) -> None:
    model = await api.upload(client, "models", name="net", metadata='{"run": "<b>7</b>"}')
    assert "checking" in (await client.get(f"/models/{model['id']}")).text
    await _set(api, Model, model["id"], state="ready", facts=FACTS)
    page = (await client.get(f"/models/{model['id']}")).text
    for text in ("1,234,567", "batch × 3 × 32 × 32", "logits", "head", "one thing to know", "&lt;b&gt;7&lt;/b&gt;"):
        assert text in page
    assert f"/jobs/new?model={model['id']}" in page
    await _set(api, Model, model["id"], state="rejected", error={"code": "unsafe_format", "detail": "save it\nanew"})
    page = (await client.get(f"/models/{model['id']}")).text
    assert "unsafe_format" in page
    assert "save it\nanew" in page
    assert "/jobs/new" not in page


async def test_what_a_dataset_is(api: Any, client: Any) -> None:
    dataset = await api.upload(client, "datasets")
    facts = {
        "columns": [{"name": "label", "dtype": "int64", "shape": []}],
        "samples": 4096,
        "label": {"kind": "class", "min": 0, "max": 9},
    }
    await _set(api, Dataset, dataset["id"], state="ready", facts=facts)
    page = (await client.get(f"/datasets/{dataset['id']}")).text
    for text in ("4,096", "scalar", "classes 0 to 9", "No job has read it yet"):
        assert text in page
    assert "4.1 k" in (await client.get("/datasets")).text


async def test_lineage(api: Any, client: Any) -> None:
    """A model, a teacher and a dataset each tell which job made what with them."""
    model, teacher = [await api.upload(client, "models", name=name) for name in ("student", "teacher")]
    dataset = await api.upload(client, "datasets")
    workspace_id = await api.workspace("ours")
    request = JobRequest(model_id=model["id"], targets=("onnxruntime",), recipe={}, name="nightly")
    async with api.services.database.transaction() as session:
        job = Job(
            workspace_id=workspace_id,
            request=request.model_dump(mode="json"),
            recipe={"steps": [{"method": "distill"}, {"method": "quantize.static"}]},
            targets=["onnxruntime"],
            model_id=model["id"],
            step_model_ids=[teacher["id"]],
            training_dataset_id=dataset["id"],
            state="succeeded",
            name="nightly",
        )
        session.add_all([job, Blob(workspace_id=workspace_id, sha256="0" * 64, size_bytes=250)])
        await session.flush()
        session.add(Metric(job_id=job.id, name="baseline", target="onnxruntime", value={"size_bytes": 1000}))
        values = {"target": "onnxruntime", "format": "onnx", "filename": "student.onnx", "size_bytes": 250}
        session.add(Artifact(workspace_id=workspace_id, job_id=job.id, sha256="0" * 64, manifest={}, **values))
    for path in (f"/models/{model['id']}", f"/models/{teacher['id']}", f"/datasets/{dataset['id']}"):
        page = (await client.get(path)).text
        assert f"/jobs/{job.id}" in page
        assert "student.onnx" in page
        assert "25 % of the original" in page
        assert "quantize.static" in page
    assert "student.onnx" not in (await client.get(f"/models/{(await api.upload(client))['id']}")).text


async def test_of_others_there_is_nothing(api: Any, client: Any) -> None:
    model = await api.upload(client)
    theirs = await api.client(workspace="theirs")
    page = await theirs.get(f"/models/{model['id']}", headers={"Accept": "text/html"})
    assert page.status_code == 404
    assert "model_not_found" in page.text
