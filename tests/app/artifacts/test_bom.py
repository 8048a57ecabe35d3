"""``/v1/artifacts/{id}/bom``: bills of materials that CycloneDX's own schema takes."""

import json
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from app.artifacts.bom import bill
from app.tables import Artifact, Model

pytestmark = pytest.mark.anyio
VALIDATOR = JsonStrictValidator(SchemaVersion.V1_6)
MANIFEST = {
    "task": "classification",
    "seed": 3,
    "recipe": {"steps": [{"method": "distill", "teacher": "mdl_t"}, {"method": "quantize.static", "bits": 8}]},
    "versions": {"python": "3.11.7", "modelpress-server": "0.1.0", "torch": "2.13.0+cpu"},
    "inputs": {
        "model": {"id": "mdl_1", "sha256": "a" * 64, "size_bytes": 9, "filename": "resnet18.pt2"},
        "calibration": {"id": "dst_1", "sha256": "b" * 64, "size_bytes": 9, "filename": "train.npz"},
        "training": {"id": "dst_1", "sha256": "b" * 64, "size_bytes": 9, "filename": "train.npz"},
        "evaluation": {"id": "dst_2", "sha256": "c" * 64, "size_bytes": 9, "filename": "holdout.npz"},
        "mdl_t": {"id": "mdl_t", "sha256": "d" * 64, "size_bytes": 9, "filename": "resnet50.pt2"},
    },
}
FIGURES = {
    "size_bytes": 1000,
    "metric": {"name": "accuracy", "value": 0.9, "ci95": [0.88, 0.92]},
    "metric_drop": {"value": 0.01, "unit": "fraction", "ci95": [-0.002, 0.022]},
    "fidelity": {"sqnr_db": 31.5, "cosine": 0.999, "agreement": 0.98},
    "latency_ms": {"p50": 1.5, "p90": 2.0, "p99": 3.0},
}
FACTS = {
    "inputs": [{"name": "image", "dtype": "float32", "shape": ["batch", 3, 32, 32]}],
    "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", 10]}],
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def row(manifest: Any) -> Artifact:
    return Artifact(
        id="art_1",
        job_id="job_1",
        target="onnxruntime",
        format="onnx",
        filename="net.int8.onnx",
        sha256="e" * 64,
        manifest=manifest,
        created_at=datetime(2026, 1, 2, tzinfo=UTC),
    )


def check(document: dict[str, Any]) -> None:
    fault = VALIDATOR.validate_str(json.dumps(document, allow_nan=False))
    assert fault is None, fault


def test_whole_bill() -> None:
    document = bill(row(MANIFEST), FIGURES, FACTS)
    check(document)
    component = document["metadata"]["component"]
    assert component["hashes"] == [{"alg": "SHA-256", "content": "e" * 64}]
    (ancestor,) = component["pedigree"]["ancestors"]
    assert (ancestor["name"], ancestor["hashes"][0]["content"]) == ("resnet18.pt2", "a" * 64)
    card = component["modelCard"]
    assert card["modelParameters"] == {
        "task": "classification",
        "datasets": [{"ref": "input:dst_1"}, {"ref": "input:dst_2"}],
        "inputs": [{"format": "image: float32[batch, 3, 32, 32]"}],
        "outputs": [{"format": "logits: float32[batch, 10]"}],
    }
    metrics = {one["type"]: one for one in card["quantitativeAnalysis"]["performanceMetrics"]}
    interval = {"lowerBound": "0.88", "upperBound": "0.92"}
    assert metrics["accuracy"] == {"type": "accuracy", "value": "0.9", "confidenceInterval": interval}
    assert {"accuracy_drop", "fidelity_sqnr_db", "latency_ms_p50", "size_bytes"} < metrics.keys()
    teacher, train, holdout = document["components"]
    assert (teacher["type"], teacher["name"]) == ("machine-learning-model", "resnet50.pt2")
    assert [one["value"] for one in train["properties"]] == ["calibration", "training"]
    assert (holdout["type"], holdout["hashes"][0]["content"]) == ("data", "c" * 64)
    (workflow,) = document["formulation"][0]["workflows"]
    assert [step["name"] for step in workflow["steps"]] == ["1: distill", "2: quantize.static"]
    assert workflow["steps"][1]["properties"] == [{"name": "modelpress:bits", "value": "8"}]
    tools = {tool["name"]: tool for tool in document["metadata"]["tools"]["components"]}
    assert tools["torch"]["purl"] == "pkg:pypi/torch@2.13.0%2Bcpu"


@settings(max_examples=30)
@given(JSON, JSON, JSON)
def test_whatever_a_job_reports_the_bill_is_valid(manifest: Any, figures: Any, inputs: Any) -> None:
    plain = manifest if isinstance(manifest, dict) else {}
    check(bill(row(plain), figures if isinstance(figures, dict) else {}, {}))
    check(bill(row({**MANIFEST, "inputs": inputs, "versions": figures}), {"metric": inputs, "fidelity": figures}, {}))
    check(bill(row({**MANIFEST, "recipe": {"steps": [manifest, manifest]}}), {}, {"inputs": [inputs, figures]}))


async def test_bill_of_an_artifact(api: Any, client: httpx2.AsyncClient, make_artifact: Any) -> None:
    """With what the check of the uploaded model told of its inputs."""
    model_id = (await api.upload(client))["id"]
    async with api.services.database.transaction() as session:
        (await session.get(Model, model_id)).facts = FACTS
    inputs = {"model": {**MANIFEST["inputs"]["model"], "id": model_id}}  # type: ignore[index]
    artifact = await make_artifact(api, {**MANIFEST, "inputs": inputs}, FIGURES)
    response = await client.get(f"/v1/artifacts/{artifact.id}/bom")
    assert response.headers["content-type"] == "application/vnd.cyclonedx+json; version=1.6"
    document = response.json()
    check(document)
    card = document["metadata"]["component"]["modelCard"]
    assert card["modelParameters"]["inputs"] == [{"format": "image: float32[batch, 3, 32, 32]"}]
    assert card["quantitativeAnalysis"]["performanceMetrics"][0]["value"] == "0.9"
    assert (await client.get(f"/v1/artifacts/{artifact.id}/bom")).json() == document


async def test_bill_of_little(client: httpx2.AsyncClient, artifact: Artifact) -> None:
    """Of a job whose model is gone, and that measured nothing."""
    document = (await client.get(f"/v1/artifacts/{artifact.id}/bom")).json()
    check(document)
    assert "pedigree" not in document["metadata"]["component"]
