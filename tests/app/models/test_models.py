"""``/v1/models`` and ``/v1/datasets``: they behave alike."""

import hashlib
import json
from typing import Any

import httpx2
import pytest
from sqlalchemy import select, update

from app.tables import Blob, Dataset, Job, Model

pytestmark = pytest.mark.anyio
DATA = b"PK\x03\x04" + bytes(range(256)) * 10


async def _rows(api: Any, statement: Any) -> list[Any]:
    async with api.services.database.transaction() as session:
        return list(await session.scalars(statement))


async def _execute(api: Any, statement: Any) -> None:
    async with api.services.database.transaction() as session:
        await session.execute(statement)


async def test_metadata_may_be_nested_deeply(client: httpx2.AsyncClient) -> None:
    metadata = '{"a":' * 230 + "1" + "}" * 230
    made = await client.post("/v1/models", data={"name": "net", "metadata": metadata}, files={"file": ("n.pt2", DATA)})
    assert made.status_code == 201, made.text
    shown = await client.get(f"/v1/models/{made.json()['id']}")
    assert shown.json()["metadata"] == json.loads(metadata)


async def test_upload_a_model(api: Any, client: httpx2.AsyncClient) -> None:
    fields = {"name": "resnet", "format": "pt2", "task": "classification", "metadata": '{"team": "vision"}'}
    response = await client.post("/v1/models", data=fields, files={"file": ("folder/net.pt2", DATA)})
    assert response.status_code == 201
    model = response.json()
    assert model["id"].startswith("mdl_")
    assert response.headers["location"] == f"http://testserver/v1/models/{model['id']}"
    expected = {
        "name": "resnet",
        "filename": "net.pt2",
        "format": "pt2",
        "task": "classification",
        "metadata": {"team": "vision"},
        "size_bytes": len(DATA),
        "sha256": hashlib.sha256(DATA).hexdigest(),
        "state": "checking",
        "inputs": None,
        "outputs": None,
        "parameters": None,
        "error": None,
    }
    assert {name: model[name] for name in expected} == expected
    assert set(model) == {*expected, "id", "created_at"}
    assert (await client.get(f"/v1/models/{model['id']}")).json() == model
    (check,) = await _rows(api, select(Job))
    assert (check.kind, check.queue, check.model_id, check.state) == ("check_model", "checks", model["id"], "queued")


async def test_checks_have_attempts_of_their_own_and_a_time_limit(make_api: Any) -> None:
    api = await make_api(check_attempts=7, check_run_s=90.0)
    await api.upload(await api.client(), "models")
    (check,) = await _rows(api, select(Job))
    assert (check.max_attempts, check.run_timeout_s) == (7, 90.0)


async def test_upload_a_dataset(api: Any, client: httpx2.AsyncClient) -> None:
    response = await client.post(
        "/v1/datasets", data={"name": "digits", "kind": "tensors"}, files={"file": ("d.npz", DATA)}
    )
    assert response.status_code == 201
    dataset = response.json()
    assert dataset["id"].startswith("dst_")
    assert (dataset["kind"], dataset["state"], dataset["columns"], dataset["samples"]) == (
        "tensors",
        "checking",
        None,
        None,
    )
    assert response.headers["location"] == f"http://testserver/v1/datasets/{dataset['id']}"
    (check,) = await _rows(api, select(Job))
    assert (check.kind, check.queue, check.calibration_dataset_id) == ("check_dataset", "checks", dataset["id"])


async def test_look_is_sent_once_the_upload_is_committed(
    api: Any, client: httpx2.AsyncClient, broker_url: str, redis_url: str
) -> None:
    import redis

    await api.upload(client)
    with redis.Redis.from_url(redis_url) as broker:
        assert broker.llen("checks") == 1


async def test_ready_model_shows_what_it_is(api: Any, client: httpx2.AsyncClient) -> None:
    model = await api.upload(client)
    tensor = {"name": "x", "dtype": "float32", "shape": ["batch", 3]}
    facts = {"format": "onnx", "inputs": [tensor], "outputs": [tensor], "parameters": 12}
    await _execute(api, update(Model).values(state="ready", format="onnx", facts=facts))
    shown = (await client.get(f"/v1/models/{model['id']}")).json()
    assert (shown["state"], shown["format"], shown["parameters"]) == ("ready", "onnx", 12)
    assert shown["inputs"] == shown["outputs"] == [tensor]


async def test_ready_dataset_shows_what_it_is(api: Any, client: httpx2.AsyncClient) -> None:
    dataset = await api.upload(client, "datasets")
    column = {"name": "input", "dtype": "float32", "shape": [1, 8, 8]}
    await _execute(api, update(Dataset).values(state="ready", facts={"columns": [column], "samples": 9, "label": None}))
    shown = (await client.get(f"/v1/datasets/{dataset['id']}")).json()
    assert (shown["columns"], shown["samples"]) == ([column], 9)


async def test_rejected_upload_says_why(api: Any, client: httpx2.AsyncClient) -> None:
    model = await api.upload(client)
    error = {"code": "truncated", "detail": "The zip has no directory; send the whole file."}
    await _execute(api, update(Model).values(state="rejected", error=error))
    assert (await client.get(f"/v1/models/{model['id']}")).json()["error"] == error


@pytest.mark.parametrize("noun", ["models", "datasets"])
async def test_list_is_newest_first_in_pages_and_filtered(api: Any, client: httpx2.AsyncClient, noun: str) -> None:
    made = [(await api.upload(client, noun, name=f"n{number % 2}"))["id"] for number in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    for expected in (2, 2, 1):
        page = (await client.get(f"/v1/{noun}", params={"limit": 2, **({"cursor": cursor} if cursor else {})})).json()
        assert len(page["items"]) == expected
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert cursor is None
    assert seen == made[::-1]
    named = (await client.get(f"/v1/{noun}", params={"name": "n1"})).json()["items"]
    assert [item["id"] for item in named] == [made[3], made[1]]
    assert (await client.get(f"/v1/{noun}", params={"state": "ready"})).json()["items"] == []
    assert len((await client.get(f"/v1/{noun}", params={"state": "checking"})).json()["items"]) == 5


async def test_cursor_survives_what_comes_in_between(api: Any, client: httpx2.AsyncClient) -> None:
    made = [(await api.upload(client, name=f"n{number}"))["id"] for number in range(3)]
    cursor = (await client.get("/v1/models", params={"limit": 1})).json()["next_cursor"]
    await api.upload(client, name="later")
    await client.delete(f"/v1/models/{made[2]}")
    page = (await client.get("/v1/models", params={"cursor": cursor})).json()
    assert [item["id"] for item in page["items"]] == [made[1], made[0]]


@pytest.mark.parametrize("cursor", ["x", "!!", "YWJj", "MjAyNi0xLTF8YQ", "%00"])
async def test_bad_cursor(client: httpx2.AsyncClient, cursor: str) -> None:
    response = await client.get("/v1/models", params={"cursor": cursor})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_cursor")


@pytest.mark.parametrize("noun", ["models", "datasets"])
async def test_delete(api: Any, client: httpx2.AsyncClient, noun: str) -> None:
    made = await api.upload(client, noun)
    assert (await client.delete(f"/v1/{noun}/{made['id']}")).status_code == 204
    assert (await client.get(f"/v1/{noun}/{made['id']}")).status_code == 404
    assert (await client.delete(f"/v1/{noun}/{made['id']}")).status_code == 404
    assert [job.state for job in await _rows(api, select(Job))] == ["canceled"]
    assert await _rows(api, select(Blob.sha256)) == [made["sha256"]]  # the collector's business, once it is old


@pytest.mark.parametrize(
    "column", ["model_id", "step_model_ids", "calibration_dataset_id", "evaluation_dataset_id", "training_dataset_id"]
)
@pytest.mark.parametrize(("state", "status"), [("queued", 409), ("running", 409), ("canceling", 409), ("failed", 204)])
async def test_delete_while_a_job_uses_it(
    api: Any, client: httpx2.AsyncClient, column: str, state: str, status: int
) -> None:
    noun = "datasets" if "dataset" in column else "models"
    made = await api.upload(client, noun)
    used = ["mdl_other", made["id"]] if column == "step_model_ids" else made["id"]
    async with api.services.database.transaction() as session:
        session.add(Job(workspace_id=await api.workspace("ours"), state=state, **{column: used}))
    response = await client.delete(f"/v1/{noun}/{made['id']}")
    assert response.status_code == status
    if status == 409:
        assert response.json()["code"] == "object_in_use"


@pytest.mark.parametrize("noun", ["models", "datasets"])
async def test_content_is_what_was_sent(api: Any, client: httpx2.AsyncClient, noun: str) -> None:
    fields = {"name": "n", "kind": "text"} if noun == "datasets" else {"name": "n"}
    made = (await client.post(f"/v1/{noun}", data=fields, files={"file": ("ünï.txt", DATA)})).json()
    response = await client.get(f"/v1/{noun}/{made['id']}/content")
    assert response.content == DATA
    assert response.headers["etag"] == f'"{made["sha256"]}"'
    assert "filename*=UTF-8''%C3%BCn%C3%AF.txt" in response.headers["content-disposition"]


@pytest.mark.parametrize("path", ["/v1/models/mdl_x", "/v1/datasets/dst_x", "/v1/models/%00", "/v1/artifacts/art_x"])
async def test_unknown_object(client: httpx2.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert response.status_code == 404
    assert response.json()["code"].endswith("_not_found")
