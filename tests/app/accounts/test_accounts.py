"""Keys, roles, workspaces: who may do what, and see what."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from app.accounts.keys import hash_key, make_key, prefix_of
from app.tables import Artifact, Blob, Job, Key

pytestmark = pytest.mark.anyio
ROLES = ("reader", "member", "admin", "operator")

#: Method, path, and the weakest role that may.
TUS = {"Tus-Resumable": "1.0.0"}
MATRIX = [
    ("GET", "/v1/models", "reader"),
    ("GET", "/v1/models/mdl_x", "reader"),
    ("GET", "/v1/models/mdl_x/content", "reader"),
    ("POST", "/v1/models", "member"),
    ("DELETE", "/v1/models/mdl_x", "member"),
    ("GET", "/v1/datasets", "reader"),
    ("POST", "/v1/datasets", "member"),
    ("DELETE", "/v1/datasets/dst_x", "member"),
    ("GET", "/v1/jobs", "reader"),
    ("GET", "/v1/jobs/job_x", "reader"),
    ("POST", "/v1/jobs", "member"),
    ("POST", "/v1/jobs/job_x:cancel", "member"),
    ("POST", "/v1/jobs/job_x:retry", "member"),
    ("DELETE", "/v1/jobs/job_x", "member"),
    ("GET", "/v1/artifacts/art_x", "reader"),
    ("GET", "/v1/artifacts/art_x/content", "reader"),
    ("GET", "/v1/artifacts/art_x/manifest", "reader"),
    ("GET", "/v1/artifacts/art_x/signature", "reader"),
    ("GET", "/v1/artifacts/art_x/bom", "reader"),
    ("GET", "/v1/artifacts/art_x/packages", "reader"),
    ("GET", "/v1/artifacts/art_x/packages/layout", "reader"),
    ("GET", "/v1/signing-key", "reader"),
    ("GET", "/v1/methods", "reader"),
    ("GET", "/v1/targets", "reader"),
    ("GET", "/v1/presets", "reader"),
    ("GET", "/v1/keys", "admin"),
    ("POST", "/v1/keys", "admin"),
    ("DELETE", "/v1/keys/key_x", "admin"),
    ("GET", "/v1/workspaces", "reader"),
    ("POST", "/v1/workspaces", "operator"),
    ("PATCH", "/v1/workspaces/wsp_x", "operator"),
    ("POST", "/v1/keys/key_x:rotate", "admin"),
    ("GET", "/v1/audit", "admin"),
    ("GET", "/v1/usage", "reader"),
    ("OPTIONS", "/v1/uploads", "reader"),
    ("POST", "/v1/uploads", "member"),
    ("HEAD", "/v1/uploads/upl_x", "reader"),
    ("PATCH", "/v1/uploads/upl_x", "member"),
    ("DELETE", "/v1/uploads/upl_x", "member"),
    ("GET", "/v1/webhooks", "admin"),
    ("POST", "/v1/webhooks", "admin"),
    ("GET", "/v1/webhooks/whk_x", "admin"),
    ("PATCH", "/v1/webhooks/whk_x", "admin"),
    ("DELETE", "/v1/webhooks/whk_x", "admin"),
    ("POST", "/v1/webhooks/whk_x:rotate", "admin"),
    ("POST", "/v1/webhooks/whk_x:test", "admin"),
    ("GET", "/v1/webhooks/whk_x/deliveries", "admin"),
    ("POST", "/v1/webhooks/whk_x/deliveries/whd_x:redeliver", "admin"),
]


async def test_roles(api: Any) -> None:
    """Every route, with every role."""
    clients = {role: await api.client(role) for role in ROLES}
    wrong = []
    for method, path, weakest in MATRIX:
        for role, client in clients.items():
            response = await client.request(method, path, json={} if method == "POST" else None, headers=TUS)
            allowed = ROLES.index(role) >= ROLES.index(weakest)
            if (response.status_code != 403) != allowed or response.status_code in (401, 500):
                wrong.append((method, path, role, response.status_code))
            if not allowed and response.json()["code"] != "role_too_weak":
                wrong.append((method, path, role, response.json()["code"]))
    assert wrong == []


async def test_matrix_is_complete(api: Any) -> None:
    """Whoever adds a route says who may use it."""
    paths = api.app.openapi()["paths"]
    routes = {
        (method.upper(), path.replace("{", "").replace("}", ""))
        for path, methods in paths.items()
        for method in methods
        if path.startswith("/v1/")
    }
    nouns = {"mdl": "model", "dst": "dataset", "job": "job", "art": "artifact", "key": "key", "wsp": "workspace"}
    nouns |= {"upl": "upload", "whk": "webhook", "whd": "delivery"}
    told = set()
    for method, path, _ in MATRIX:
        for short, noun in nouns.items():
            path = path.replace(f"{short}_x", f"{noun}_id")
        told.add((method, path))
    like_models = {(m, p.replace("dataset", "model")) for m, p in routes if "dataset" in p}
    assert like_models <= told | routes
    streams = {("GET", "/v1/jobs/job_id/events"), ("GET", "/v1/jobs/job_id/logs"), ("POST", "/v1/jobs:estimate")}
    datasets = {("GET", "/v1/datasets/dataset_id"), ("GET", "/v1/datasets/dataset_id/content")}
    assert routes - told - datasets - streams == set()


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "key_missing"),
        ("", "key_invalid"),
        ("Bearer", "key_invalid"),
        ("Bearer mpk_x", "key_invalid"),
        ("Basic dXNlcjpwYXNz", "key_invalid"),
        ("Bearer mpk_000000000000_00000000000000000000000000000000", "key_invalid"),
        ("Bearer mpk_\u0000", "key_invalid"),
    ],
)
async def test_without_a_valid_key(api: Any, header: str | None, code: str) -> None:
    client = api.client_with({})
    headers = [] if header is None else [(b"authorization", header.encode())]
    for path in ("/v1/models", "/v1/jobs", "/v1/keys", "/v1/methods"):
        response = await client.get(path, headers=headers)
        assert (response.status_code, response.json()["code"]) == (401, code)
        assert response.headers["www-authenticate"].startswith('Bearer realm="modelpress"')


async def test_post_without_a_key_reads_no_body(api: Any) -> None:
    response = await api.client_with({}).post("/v1/models", content=b"nonsense", headers={"Idempotency-Key": "k"})
    assert response.status_code == 401


async def test_right_prefix_wrong_secret(api: Any) -> None:
    key = await api.key()
    wrong = key[:-1] + ("0" if key[-1] != "0" else "1")
    response = await api.client_with({"Authorization": f"Bearer {wrong}"}).get("/v1/models")
    assert (response.status_code, response.json()["code"]) == (401, "key_invalid")


async def test_expired_key(api: Any) -> None:
    key = await api.key(expires_at=datetime.now(UTC) + timedelta(seconds=1))
    client = api.client_with({"Authorization": f"Bearer {key}"})
    assert (await client.get("/v1/models")).status_code == 200
    await asyncio.sleep(1.1)
    assert (await client.get("/v1/models")).status_code == 401


async def test_life_of_a_key(api: Any) -> None:
    admin = await api.client("admin")
    made = await admin.post("/v1/keys", json={"name": "ci", "role": "member"})
    assert made.status_code == 201
    key = made.json()
    assert key["key"].startswith(f"mpk_{key['prefix']}_")
    assert (key["role"], key["name"], key["workspace_id"]) == ("member", "ci", await api.workspace("ours"))
    client = api.client_with({"Authorization": f"Bearer {key['key']}"})
    assert (await client.get("/v1/models")).status_code == 200
    listed = (await admin.get("/v1/keys")).json()["items"]
    assert {item["id"] for item in listed} >= {key["id"]}
    assert all("key" not in item and "hash" not in item for item in listed)
    assert next(item for item in listed if item["id"] == key["id"])["last_used_at"] is not None
    assert (await admin.delete(f"/v1/keys/{key['id']}")).status_code == 204
    assert (await client.get("/v1/models")).status_code == 401
    assert (await admin.delete(f"/v1/keys/{key['id']}")).status_code == 204


async def test_only_a_hash_is_stored(api: Any) -> None:
    key = await api.key()
    async with api.services.database.transaction() as session:
        row = (await session.scalars(select(Key))).one()
        dump = str({column.name: getattr(row, column.name) for column in Key.__table__.columns})
    assert key not in dump
    assert key.rpartition("_")[2] not in dump
    assert row.hash == hash_key(key, api.services.settings.key_pepper)
    assert prefix_of(key) == row.prefix


async def test_pepper_is_part_of_the_proof(make_api: Any) -> None:
    from pydantic import SecretStr

    api = await make_api()
    other = await make_api(key_pepper=SecretStr("another"))
    key = await api.key()
    assert (await other.client_with({"Authorization": f"Bearer {key}"}).get("/v1/models")).status_code == 401


async def test_nobody_makes_a_key_stronger_than_his_own(api: Any) -> None:
    admin, operator = await api.client("admin"), await api.client("operator")
    refused = await admin.post("/v1/keys", json={"name": "k", "role": "operator"})
    assert (refused.status_code, refused.json()["code"]) == (403, "role_too_weak")
    made = await operator.post("/v1/keys", json={"name": "k", "role": "operator"})
    assert made.status_code == 201
    assert (await admin.delete(f"/v1/keys/{made.json()['id']}")).status_code == 403


async def test_keys_of_other_workspaces(api: Any) -> None:
    admin, operator = await api.client("admin"), await api.client("operator")
    theirs = await api.workspace("theirs")
    body = {"name": "k", "role": "reader", "workspace_id": theirs}
    assert (await admin.post("/v1/keys", json=body)).json()["code"] == "workspace_not_found"
    made = await operator.post("/v1/keys", json=body)
    assert (made.status_code, made.json()["workspace_id"]) == (201, theirs)
    assert (await admin.delete(f"/v1/keys/{made.json()['id']}")).status_code == 404
    assert made.json()["id"] not in {item["id"] for item in (await admin.get("/v1/keys")).json()["items"]}
    assert made.json()["id"] in {item["id"] for item in (await operator.get("/v1/keys")).json()["items"]}
    unknown = await operator.post("/v1/keys", json={**body, "workspace_id": "wsp_x"})
    assert unknown.status_code == 404


@pytest.mark.parametrize(
    "change",
    [
        {"role": "king"},
        {"name": ""},
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"expires_at": "2030-01-01"},
        {"colour": 1},
        {"name": "a\0"},
    ],
)
async def test_bad_key_request(api: Any, change: dict[str, Any]) -> None:
    admin = await api.client("admin")
    response = await admin.post("/v1/keys", json={"name": "k", "role": "reader", **change})
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == f"/{next(iter(change))}"


async def test_workspaces(api: Any) -> None:
    operator, reader = await api.client("operator"), await api.client("reader", "theirs")
    made = await operator.post("/v1/workspaces", json={"name": "team"})
    assert made.status_code == 201
    assert made.json()["id"].startswith("wsp_")
    again = await operator.post("/v1/workspaces", json={"name": "team"})
    assert (again.status_code, again.json()["code"]) == (409, "workspace_exists")
    names = [item["name"] for item in (await operator.get("/v1/workspaces")).json()["items"]]
    assert names == ["team", "theirs", "ours"]
    assert [item["name"] for item in (await reader.get("/v1/workspaces")).json()["items"]] == ["theirs"]


async def test_one_workspace_never_sees_anothers_objects(api: Any) -> None:
    ours, theirs = await api.client("admin", "ours"), await api.client("operator", "theirs")
    model, dataset = await api.upload(ours), await api.upload(ours, "datasets")
    async with api.services.database.transaction() as session:
        workspace_id = await api.workspace("ours")
        job = Job(workspace_id=workspace_id, model_id=model["id"])
        session.add(job)
        await session.flush()
        blob = (await session.scalars(select(Blob).where(Blob.sha256 == model["sha256"]))).one()
        artifact = Artifact(
            workspace_id=workspace_id, job_id=job.id, target="onnxruntime", format="onnx", filename="m.onnx",
            size_bytes=blob.size_bytes, sha256=blob.sha256, manifest={},
        )  # fmt: skip
        session.add(artifact)
        await session.flush()
        ids = {"models": model["id"], "datasets": dataset["id"], "jobs": job.id, "artifacts": artifact.id}
    for noun, object_id in ids.items():
        if noun != "jobs":
            assert (await ours.get(f"/v1/{noun}/{object_id}")).status_code == 200
        assert (await theirs.get(f"/v1/{noun}/{object_id}")).status_code == 404
        if noun in ("models", "datasets", "artifacts"):
            assert (await theirs.get(f"/v1/{noun}/{object_id}/content")).status_code == 404
        if noun != "artifacts":
            assert (await theirs.delete(f"/v1/{noun}/{object_id}")).status_code == 404
            assert (await theirs.get(f"/v1/{noun}")).json()["items"] == []
    for action in ("cancel", "retry"):
        assert (await theirs.post(f"/v1/jobs/{ids['jobs']}:{action}")).status_code == 404


async def test_authentication_can_be_switched_off(make_api: Any) -> None:
    from pydantic import SecretStr

    api = await make_api(auth_enabled=False, key_pepper=SecretStr(""))
    client = api.client_with({})
    models = await asyncio.gather(*(api.upload(client) for _ in range(3)))
    assert len((await client.get("/v1/models")).json()["items"]) == len(models)
    assert [item["name"] for item in (await client.get("/v1/workspaces")).json()["items"]] == ["default"]


async def test_authentication_needs_a_pepper(make_api: Any) -> None:
    from pydantic import SecretStr

    with pytest.raises(ValueError, match="MODELPRESS_KEY_PEPPER"):
        await make_api(key_pepper=SecretStr(""))


def test_keys_differ() -> None:
    from pydantic import SecretStr

    assert len({make_key(SecretStr("p")).text for _ in range(100)}) == 100
