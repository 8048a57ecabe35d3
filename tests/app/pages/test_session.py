"""Signing in with a key: the cookie, what it is good for, and what ends it."""

import re
from datetime import timedelta
from typing import Any

import httpx2
import pytest
import time_machine

from app.accounts.sessions import COOKIE

pytestmark = pytest.mark.anyio
SAME = {"Sec-Fetch-Site": "same-origin"}
HTML = {"Accept": "text/html,*/*;q=0.8", "Sec-Fetch-Site": "none"}


async def _signed_in(api: Any, role: str = "member") -> tuple[httpx2.AsyncClient, str]:
    key = await api.key(role)
    client = api.client_with({})
    response = await client.post("/sign-in", data={"key": f" {key}\n"}, headers=SAME)
    assert (response.status_code, response.headers["location"]) == (303, "/")
    return client, key


async def test_a_session_stands_for_its_key(api: Any) -> None:
    client, key = await _signed_in(api)
    cookie = client.cookies[COOKIE]
    assert key not in cookie
    page = await client.get("/", headers=HTML)
    assert page.status_code == 200
    assert "ours" in page.text
    assert (await client.get("/v1/models")).status_code == 200
    made = await client.post("/v1/jobs:estimate", json={}, headers=SAME)
    assert made.status_code == 422


async def test_attributes_of_the_cookie(api: Any) -> None:
    key = await api.key()
    for base, secure in (("http://testserver", False), ("https://testserver", True)):
        client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=api.app), base_url=base)
        response = await client.post("/sign-in", data={"key": key}, headers=SAME)
        sent = response.headers["set-cookie"].lower()
        assert {"httponly", "samesite=strict", "max-age=43200", "path=/"} <= set(sent.split("; "))
        assert ("secure" in sent.split("; ")) is secure


async def test_a_header_wins_over_the_cookie(api: Any) -> None:
    client, _ = await _signed_in(api)
    assert (await client.get("/v1/models", headers={"Authorization": "Bearer mpk_wrong"})).status_code == 401


async def test_other_sites_change_nothing(api: Any) -> None:
    client, _ = await _signed_in(api, "admin")
    body = {"name": "k", "role": "reader"}
    own = {"Origin": "http://testserver"}
    for headers in ({"Sec-Fetch-Site": "cross-site", **own}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "null"}, {}):
        refused = await client.post("/v1/keys", json=body, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "cross_origin")
    for headers in (SAME, own):
        assert (await client.post("/v1/keys", json=body, headers=headers)).status_code == 201
    stranger = api.client_with({})
    refused = await stranger.post("/sign-in", data={"key": await api.key()}, headers={"Sec-Fetch-Site": "cross-site"})
    assert refused.status_code == 403
    assert "set-cookie" not in refused.headers


async def test_a_session_ends(api: Any) -> None:
    client, _ = await _signed_in(api)
    kept = {"Cookie": f"{COOKIE}={client.cookies[COOKIE]}"}  # the client itself forgets it in time
    with time_machine.travel(timedelta(seconds=43_201), tick=True):
        late = await client.get("/v1/models", headers=kept)
        assert (late.status_code, late.json()["code"]) == (401, "session_ended")
        assert (await client.get("/", headers=HTML | kept)).headers["location"].startswith("/sign-in?next=")
    out = await client.post("/sign-out", headers=SAME)
    assert out.status_code == 303
    assert COOKIE not in client.cookies
    assert (await client.get("/", headers=HTML)).headers["location"] == "/sign-in?next=%2F"


async def test_a_revoked_key_ends_its_sessions(api: Any) -> None:
    client, key = await _signed_in(api)
    admin = await api.client("admin")
    prefix = key.removeprefix("mpk_")
    (row,) = [k for k in (await admin.get("/v1/keys")).json()["items"] if prefix.startswith(k["prefix"])]
    assert (await admin.delete(f"/v1/keys/{row['id']}")).status_code == 204
    assert (await client.get("/v1/models")).status_code == 401
    assert (await client.get("/", headers=HTML)).status_code == 303


async def test_a_wrong_key_is_told_and_recorded(api: Any) -> None:
    client = api.client_with({})
    wrong = await client.post("/sign-in", data={"key": "mpk_" + "a" * 40}, headers={**HTML, **SAME})
    assert wrong.status_code == 401
    assert "unknown, expired or revoked" in wrong.text
    assert "DIR/admin.key" in wrong.text
    assert "set-cookie" not in wrong.headers
    assert (await client.post("/sign-in", data={"key": ""}, headers=SAME)).status_code == 401
    events = (await (await api.client("operator")).get("/v1/audit?action=authenticate")).json()["items"]
    assert [event["outcome"] for event in events] == ["key_invalid"]


async def test_too_many_wrong_keys(make_api: Any) -> None:
    api = await make_api(auth_failures_per_min=1)
    client = api.client_with({})
    answers = [await client.post("/sign-in", data={"key": "mpk_wrong"}, headers=SAME) for _ in range(3)]
    assert answers[-1].status_code == 429
    assert answers[-1].headers["retry-after"]


@pytest.mark.parametrize(
    ("then", "location"),
    [
        ("/jobs?state=failed", "/jobs?state=failed"),
        ("//evil.example/", "/"),
        ("https://evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("/\tx", "/"),
        ("", "/"),
    ],
)
async def test_where_signing_in_leads(api: Any, then: str, location: str) -> None:
    client = api.client_with({})
    response = await client.post("/sign-in", data={"key": await api.key(), "next": then}, headers=SAME)
    assert response.headers["location"] == location


async def test_a_link_from_elsewhere_finds_the_session(api: Any) -> None:
    """Browsers withhold the cookie then; the page goes on from here, where who is signed in is let through."""
    stranger = api.client_with({})
    for headers in ({**HTML, "Sec-Fetch-Site": "cross-site"}, {"Accept": "text/html"}):  # plain HTTP: nothing is said
        page = await stranger.get("/?a=1&b=%22", headers=headers)
        assert page.status_code == 200
        found = re.search('http-equiv="refresh" content="0; url=([^"]+)"', page.text)
        assert found is not None
        assert (await stranger.get(found[1], headers=SAME)).status_code == 200
        client, _ = await _signed_in(api)
        through = await client.get(found[1], headers=SAME)
        assert (through.status_code, through.headers["location"]) == (303, "/?a=1&b=%22")


async def test_keys_cannot_be_tried_at_the_form(api: Any) -> None:
    client = api.client_with({"Authorization": f"Bearer {await api.key()}"})
    assert (await client.get("/sign-in", headers=HTML)).status_code == 200


async def test_without_authentication_there_is_no_signing_in(make_api: Any) -> None:
    api = await make_api(auth_enabled=False)
    client = api.client_with({})
    assert (await client.get("/sign-in")).headers["location"] == "/"
    page = await client.get("/", headers=HTML)
    assert page.status_code == 200
    assert "Sign out" not in page.text
