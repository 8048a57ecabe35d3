"""The catalogue says what jobs may ask."""

import httpx
import pytest

from app.recipes import METHODS, PRESETS, TARGETS, parse_recipe

pytestmark = pytest.mark.anyio


async def test_methods(api: httpx.AsyncClient) -> None:
    items = {item["name"]: item for item in (await api.get("/v1/methods")).json()["items"]}
    assert set(items) == set(METHODS)
    static = items["quantize.static"]
    assert static["needs"] == ["calibration"]
    assert set(static["targets"]) <= set(TARGETS)
    assert set(static["possible"]) == set(static["targets"])
    assert static["possible"]["torch"]["activation_bits"] == [8, 16, 4]
    schema = static["parameters"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["calibration"]["default"] == "mse"
    assert static["summary"]


async def test_targets(api: httpx.AsyncClient) -> None:
    items = {item["name"]: item for item in (await api.get("/v1/targets")).json()["items"]}
    assert set(items) == set(TARGETS)
    assert {name for name, item in items.items() if item["offered"]} == {"onnxruntime", "openvino", "torch"}
    assert items["torch"]["compute"] == ["cpu"]
    assert items["torch"]["weight_bits"] == [8, 4]
    assert "matmul" in items["onnxruntime"]["operators"]
    assert items["onnxruntime"]["activation_dtype"] == TARGETS["onnxruntime"].activation_dtype


async def test_presets(api: httpx.AsyncClient) -> None:
    items = {item["name"]: item for item in (await api.get("/v1/presets")).json()["items"]}
    assert set(items) == set(PRESETS)
    for item in items.values():
        assert parse_recipe(item["recipe"]).steps


@pytest.mark.parametrize("path", ["methods", "targets", "presets"])
async def test_a_key_is_needed(api: httpx.AsyncClient, path: str) -> None:
    assert (await api.get(f"/v1/{path}", headers={"Authorization": ""})).status_code == 401
