"""``/v1/webhooks`` as its clients see it."""

import base64
from typing import Any

import pytest
from sqlalchemy import text

from app.webhooks.signing import secret_of

pytestmark = pytest.mark.anyio
URL = "https://receiver.example/hook?a=b"


async def test_make_show_list_change_delete(hooks: Any) -> None:
    made = await hooks.make(url=URL, events=["job.failed", "job.failed"], name="ci")
    assert made["id"].startswith("whk_")
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    assert (made["url"], made["events"], made["name"], made["enabled"]) == (URL, ["job.failed"], "ci", True)
    assert (await hooks.client.get(f"/v1/webhooks/{made['id']}")).json() == made
    other = await hooks.make()
    listed = (await hooks.client.get("/v1/webhooks")).json()["items"]
    assert [item["id"] for item in listed] == [other["id"], made["id"]]
    assert all("secret" not in item for item in listed)
    changed = await hooks.client.patch(f"/v1/webhooks/{made['id']}", json={"enabled": False, "name": "cd"})
    assert changed.json() == {**made, "enabled": False, "name": "cd"}
    assert (await hooks.client.delete(f"/v1/webhooks/{made['id']}")).status_code == 204
    assert (await hooks.client.get(f"/v1/webhooks/{made['id']}")).json()["code"] == "webhook_not_found"


@pytest.mark.parametrize(
    "url",
    ["http://[::1]/", "https://10.0.0.1/", "https://user@example.com/", "ftp://example.com", "https://0xA000001/"],
)
async def test_urls_that_are_refused(hooks: Any, url: str) -> None:
    made = await hooks.make()
    for response in (
        await hooks.client.post("/v1/webhooks", json={"url": url, "events": ["job.failed"]}),
        await hooks.client.patch(f"/v1/webhooks/{made['id']}", json={"url": url}),
    ):
        assert response.status_code == 422
        assert response.json()["code"] == "webhook_url_not_allowed"
        assert response.json()["errors"][0]["pointer"] == "/url"


@pytest.mark.parametrize(
    "body",
    [
        {"url": URL},
        {"url": URL, "events": []},
        {"url": URL, "events": ["job.started"]},
        {"url": URL, "events": ["job.failed"], "secret": "mine"},
        {"url": "\0", "events": ["job.failed"]},
    ],
)
async def test_bodies_that_are_refused(hooks: Any, body: Any) -> None:
    assert (await hooks.client.post("/v1/webhooks", json=body)).json()["code"] == "invalid_request"


async def test_an_admins_key_is_needed(hooks: Any) -> None:
    made = await hooks.make()
    delivery = await hooks.test(made)
    one = f"/v1/webhooks/{made['id']}"
    for role in ("reader", "member"):
        headers = await hooks.stage.key(role)
        for method, path in (
            ("POST", "/v1/webhooks"),
            ("GET", "/v1/webhooks"),
            ("GET", one),
            ("PATCH", one),
            ("DELETE", one),
            ("POST", f"{one}:rotate"),
            ("POST", f"{one}:test"),
            ("GET", f"{one}/deliveries"),
            ("POST", f"{one}/deliveries/{delivery['id']}:redeliver"),
        ):
            body = {"url": URL, "events": ["job.failed"]} if method in ("POST", "PATCH") else None
            response = await hooks.client.request(method, path, json=body, headers=headers)
            assert (response.status_code, response.json()["code"]) == (403, "role_too_weak"), path


async def test_other_workspaces_see_nothing(hooks: Any) -> None:
    made = await hooks.make()
    delivery = await hooks.test(made)
    own = await hooks.make()
    headers = await hooks.stage.key("admin", await hooks.stage.workspace("other"))
    one = f"/v1/webhooks/{made['id']}"
    for method, path in (
        ("GET", one),
        ("DELETE", one),
        ("POST", f"{one}:rotate"),
        ("POST", f"{one}:test"),
        ("GET", f"{one}/deliveries"),
        ("POST", f"{one}/deliveries/{delivery['id']}:redeliver"),
    ):
        response = await hooks.client.request(method, path, headers=headers)
        assert (response.status_code, response.json()["code"]) == (404, "webhook_not_found"), path
    assert (await hooks.client.patch(one, json={"enabled": False}, headers=headers)).status_code == 404
    assert (await hooks.client.get("/v1/webhooks", headers=headers)).json()["items"] == []
    crossed = await hooks.client.post(f"/v1/webhooks/{own['id']}/deliveries/{delivery['id']}:redeliver")
    assert crossed.json()["code"] == "delivery_not_found"


async def test_no_secret_is_in_the_database(hooks: Any) -> None:
    headers = {"Idempotency-Key": "once"}
    body = {"url": URL, "events": ["job.failed"]}
    made = (await hooks.client.post("/v1/webhooks", json=body, headers=headers)).json()
    again = await hooks.client.post("/v1/webhooks", json=body, headers=headers)
    assert again.json() == made
    key = base64.b64decode(made["secret"].removeprefix("whsec_"))
    async with hooks.stage.database.transaction() as session:
        for table in ("webhooks", "idempotency_keys"):
            rows = (await session.execute(text(f"SELECT * FROM {table}"))).all()
            assert len(rows) == 1
            stored = b"".join(column if isinstance(column, bytes) else str(column).encode() for column in rows[0])
            assert key not in stored
            assert made["secret"].encode() not in stored
    pepper = hooks.stage.settings.key_pepper
    assert secret_of(pepper, "whk_1", b"a") != secret_of(pepper, "whk_2", b"a") != secret_of(pepper, "whk_2", b"b")


async def test_what_is_switched_off_is_not_sent_to(hooks: Any) -> None:
    made = await hooks.make()
    delivery = await hooks.test(made)
    await hooks.client.patch(f"/v1/webhooks/{made['id']}", json={"enabled": False})
    for path in (":test", f"/deliveries/{delivery['id']}:redeliver"):
        response = await hooks.client.post(f"/v1/webhooks/{made['id']}{path}")
        assert (response.status_code, response.json()["code"]) == (409, "webhook_disabled")
