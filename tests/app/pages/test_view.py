"""What all pages have in common: headers, files, errors."""

import re
from typing import Any

import pytest

pytestmark = pytest.mark.anyio
HTML = {"Accept": "text/html,*/*;q=0.8"}


async def test_headers(api: Any, client: Any) -> None:
    for page in (await client.get("/", headers=HTML), await api.client_with({}).get("/sign-in")):
        policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["referrer-policy"] == "same-origin"
        assert page.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son[a-z]+=", page.text)


async def test_files_last_for_ever_at_their_address(api: Any) -> None:
    client = api.client_with({"Accept-Encoding": "gzip"})
    html = (await client.get("/sign-in")).text
    addresses = re.findall(r'(?:href|src)="(/static/[^"]+)"', html)
    assert len(addresses) >= 3
    for address in addresses:
        response = await client.get(address)
        assert response.status_code == 200
        assert "immutable" in response.headers["cache-control"]
    style = next(address for address in addresses if address.endswith(".css"))
    version = style.split("/")[2]
    assert (await client.get(style.replace(version, "older"))).headers["cache-control"] == "no-store"
    for missing in ("css/none.css", "..%2fview.py", "css"):
        assert (await client.get(f"/static/{version}/{missing}")).status_code == 404


async def test_the_charts_library_is_served_packed(api: Any) -> None:
    version = api.app.state.assets.version
    async with api.client_with({"Accept-Encoding": "gzip"}) as client:
        response = await client.get(f"/static/{version}/vendor/plotly.min.js")
        assert response.headers["content-encoding"] == "gzip"
        assert response.headers["content-type"].startswith("text/javascript")
        assert int(response.headers["content-length"]) < 2_000_000
    plain = await api.client_with({"Accept-Encoding": "identity"}).get(f"/static/{version}/vendor/plotly.min.js")
    assert plain.content == response.content
    assert b"plotly.js v" in plain.content[:200]


async def test_errors_are_pages_for_people(client: Any) -> None:
    page = await client.get("/nowhere", headers=HTML)
    assert page.status_code == 404
    assert page.headers["content-type"].startswith("text/html")
    assert "not_found" in page.text
    assert page.headers["x-request-id"] in page.text
    for path, headers in (("/nowhere", {}), ("/v1/models/mdl_1", HTML), ("/v1/nowhere", HTML)):
        assert (await client.get(path, headers=headers)).headers["content-type"] == "application/problem+json"


async def test_text_of_others_is_no_markup(api: Any, client: Any) -> None:
    await api.upload(client, "models", name="<script>alert(1)</script>")
    page = await client.get("/", headers=HTML)
    assert "&lt;script&gt;alert" in page.text
    assert "<script>alert" not in page.text


async def test_faults_of_the_server_are_pages_too(make_api: Any) -> None:
    api = await make_api(database_url="postgresql+psycopg://nobody@127.0.0.1:1/none", auth_enabled=False)
    page = await api.client_with({}).get("/", headers=HTML)
    assert page.status_code == 503
    assert "database_unavailable" in page.text
