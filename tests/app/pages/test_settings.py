"""Pages for administrators."""

from typing import Any

import pytest

from app.tables import Worker

pytestmark = pytest.mark.anyio
PAGES = ("/settings/keys", "/settings/webhooks", "/settings/usage", "/settings/audit")


async def test_only_for_administrators(api: Any, client: Any) -> None:
    admin = await api.client("admin")
    for path in PAGES:
        refused = await client.get(path, headers={"Accept": "text/html"})
        assert refused.status_code == 403
        assert "role_too_weak" in refused.text
        assert (await admin.get(path)).status_code == 200
    assert "/settings/keys" not in (await client.get("/")).text
    assert "/settings/keys" in (await admin.get("/")).text


async def test_keys_and_what_they_are(api: Any) -> None:
    admin = await api.client("admin")
    made = (await admin.post("/v1/keys", json={"name": "ci <1>", "role": "member"})).json()
    await admin.delete(f"/v1/keys/{made['id']}")
    page = (await admin.get("/settings/keys")).text
    assert "ci &lt;1&gt;" in page
    assert made["key"] not in page
    assert "state-revoked" in page
    assert "yours" in page
    assert ">operator</option>" not in page
    assert "Workspace</th>" not in page
    await api.key(workspace="theirs")
    page = (await (await api.client("operator")).get("/settings/keys")).text
    assert "theirs" in page
    assert ">operator</option>" in page


async def test_a_webhook_and_its_log(api: Any) -> None:
    admin = await api.client("admin")
    assert "No webhooks" in (await admin.get("/settings/webhooks")).text
    body = {"url": "https://receiver.invalid/hook", "events": ["job.failed"], "name": "chat"}
    made = (await admin.post("/v1/webhooks", json=body)).json()
    path = f"/settings/webhooks/{made['id']}"
    assert path in (await admin.get("/settings/webhooks")).text
    assert "Nothing was sent yet" in (await admin.get(path)).text
    await admin.post(f"/v1/webhooks/{made['id']}:test")
    page = (await admin.get(path)).text
    assert "webhook.test" in page
    assert "state-pending" in page
    assert made["secret"] not in page


async def test_usage_and_workers(api: Any) -> None:
    capabilities = {"sandbox": {"walls": ["landlock"], "missing": {"namespaces": "not <allowed> here"}}}
    operator, admin = await api.client("operator"), await api.client("admin")
    assert "No worker is live" in (await operator.get("/settings/usage")).text
    async with api.services.database.transaction() as session:
        session.add(Worker(id="w", hostname="node-7", queue="cpu", targets=["torch"], capabilities=capabilities))
    page = (await operator.get("/settings/usage")).text
    assert "node-7" in page
    assert "landlock" in page
    assert "not &lt;allowed&gt; here" in page
    assert "node-7" not in (await admin.get("/settings/usage")).text


async def test_quotas_are_shown(make_api: Any) -> None:
    api = await make_api(quota_stored_bytes=5_000_000, quota_jobs=4)
    page = (await (await api.client("admin")).get("/settings/usage")).text
    assert "of 5.00 MB" in page or "of 5 MB" in page
    assert 'max="4"' in page


async def test_the_audit_log_is_filtered(api: Any) -> None:
    admin = await api.client("admin")
    await admin.post("/v1/keys", json={"name": "k", "role": "reader"})
    member = await api.client()
    await member.post("/v1/keys", json={"name": "k", "role": "reader"})
    page = (await admin.get("/settings/audit?outcome=role_too_weak&action=&actor=")).text
    assert page.count("create_key") == 1
    assert "role_too_weak" in page
    assert "No event matches" in (await admin.get("/settings/audit?action=none")).text
