"""The first page."""

from typing import Any

import pytest

pytestmark = pytest.mark.anyio


async def test_says_what_to_do_first(client: Any) -> None:
    page = (await client.get("/")).text
    assert "Compress your first model" in page
    assert "Upload a model" in page


async def test_shows_what_is_there(api: Any, client: Any) -> None:
    model = await api.upload(client, "models", name="digits")
    page = (await client.get("/")).text
    assert f"/models/{model['id']}" in page
    assert "Compress your first model" not in page
    assert "digits" not in (await (await api.client(workspace="theirs")).get("/")).text
