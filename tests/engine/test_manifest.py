"""Names of artifacts, and what their manifests say about where they were made."""

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.manifest import describe, file_name
from worker.engine.measure.machine import cpu_flags, hardware, versions
from worker.engine.targets import TARGETS


@pytest.mark.parametrize(
    ("model", "target", "expected"),
    [
        ("resnet18.pt2", "onnxruntime", "resnet18.int8.onnx"),
        ("resnet18.pt2", "openvino", "resnet18.int8.openvino.zip"),
        ("résumé model.v2.onnx", "torch", "résumé_model.int8.pt2"),
        ("../../etc/passwd", "torch", "passwd.int8.pt2"),
        (".pt2", "torch", "model.int8.pt2"),
    ],
)
def test_file_name(model: str, target: str, expected: str) -> None:
    assert file_name(model, target, quantized=True) == expected


@given(st.text(max_size=300))
def test_any_upload_gives_a_plain_name(model: str) -> None:
    name = file_name(model, "onnxruntime", quantized=False)
    assert Path(name).name == name
    assert name.endswith(".compressed.onnx")
    assert not name.startswith((".", "-"))
    assert len(name) < 150


def test_manifest_has_digest_versions_and_hardware(tmp_path: Path) -> None:
    artifact = tmp_path / "net.int8.onnx"
    artifact.write_bytes(b"bytes")
    made = describe("onnxruntime", artifact, {"seed": 7}, {"inputs": {"model": {"id": "mdl_1"}}})
    assert (made.format, made.filename) == ("onnx", "net.int8.onnx")
    assert made.manifest["artifact"] == {"sha256": hashlib.sha256(b"bytes").hexdigest(), "size_bytes": 5}
    assert (made.manifest["seed"], made.manifest["inputs"]["model"]["id"]) == (7, "mdl_1")
    assert set(TARGETS) - {"torch", "litert", "tensorrt"} | {"ai-edge-litert"} <= set(made.manifest["versions"])
    json.dumps(made.manifest, allow_nan=False)


def test_machine() -> None:
    machine = hardware()
    assert machine["cores"] >= 1
    assert machine["memory_bytes"] > 2**28
    assert machine["cpu"]
    assert set(machine["flags"]) <= cpu_flags()
    assert versions()["python"].startswith("3.")
