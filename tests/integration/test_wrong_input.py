"""Wrong input, as a user would send it: each with its own code, and a sentence that helps."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.client import Api
from tests.support.digits import Digits, DigitsNet, npz
from tests.support.pt2_files import edit_json, entries, rebuild, torch_payload

pytestmark = pytest.mark.xdist_group("service")

STATIC = {"steps": [{"method": "quantize.static"}]}


def rejected(api: Api, noun: str, content: bytes, filename: str, **fields: str) -> tuple[str, str]:
    """Code and sentence of a file that is refused, at the POST or by its check."""
    fields = {"name": filename, **fields}
    answer = api.http.post(f"/v1/{noun}", data=fields, files={"file": (filename, content)})
    if answer.status_code != 201:
        assert answer.headers["Content-Type"] == "application/problem+json"
        return answer.json()["code"], answer.json()["detail"]
    view = api.checked(noun, content, filename, **fields)
    assert view["state"] == "rejected", view
    return view["error"]["code"], view["error"]["detail"]


def pickled(module: torch.nn.Module) -> bytes:
    buffer = io.BytesIO()
    torch.save(module, buffer)
    return buffer.getvalue()


def zip_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/models/model.json", b" " * (300 << 20))
    return buffer.getvalue()


#: What is uploaded -> file name, content, code.
MODELS: dict[str, tuple[str, Callable[[Digits], bytes], str]] = {
    "empty file": ("a.pt2", lambda _: b"", "empty_file"),
    "truncated archive": ("a.pt2", lambda digits: digits.model[: len(digits.model) // 2], "file_damaged"),
    "pickled module": ("a.pt", lambda _: pickled(DigitsNet()), "unsafe_format"),
    "pickled module with another name": ("a.pt2", lambda _: pickled(DigitsNet()), "unsafe_format"),
    "zip bomb": ("a.pt2", lambda _: zip_bomb(), "archive_too_large"),
    "text": ("a.pt2", lambda _: b"hello world, this is no model" * 10, "unknown_format"),
}


@pytest.mark.parametrize("case", MODELS)
def test_models(api: Api, digits: Digits, case: str) -> None:
    filename, make, expected = MODELS[case]
    code, detail = rejected(api, "models", make(digits), filename)
    assert code == expected, detail
    assert len(detail) > 20


def poison(document: Any, code: str) -> None:
    """Puts `code` in place of every shape expression."""
    if isinstance(document, dict):
        if "expr_str" in document:
            document["expr_str"] = code
        for value in document.values():
            poison(value, code)
    elif isinstance(document, list):
        for value in document:
            poison(value, code)


def test_code_in_a_shape_expression_does_not_run(api: Api, digits: Digits, tmp_path: Path) -> None:
    marker = Path("/tmp") / f"modelpress-marker-{tmp_path.name}"
    (tmp_path / "good.pt2").write_bytes(digits.model)
    code = f"__import__('os').system('touch {marker}')"
    evil = edit_json(
        tmp_path / "good.pt2", "models/model.json", lambda document: poison(document, code), tmp_path / "evil.pt2"
    )
    assert code.encode() in evil.read_bytes()
    answer, detail = rejected(api, "models", evil.read_bytes(), "evil.pt2")
    assert answer == "unsafe_format", detail
    assert not marker.exists()


def test_code_in_the_sample_inputs_does_not_run(api: Api, digits: Digits, tmp_path: Path) -> None:
    """Sample inputs are never read, so the model is as good as without them."""
    marker = Path("/tmp") / f"modelpress-marker-{tmp_path.name}"
    (tmp_path / "good.pt2").write_bytes(digits.model)
    content = entries(tmp_path / "good.pt2")
    content["data/sample_inputs/model.pt"] = torch_payload(marker)
    view = api.checked("models", rebuild(content, tmp_path / "evil.pt2").read_bytes(), "evil.pt2")
    assert view["state"] == "ready", view
    assert not marker.exists()


def images(count: int = 32, shape: tuple[int, ...] = (1, 8, 8), dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(0).random((count, *shape)).astype(dtype)


def with_nans() -> np.ndarray:
    data = images()
    data[3, 0, 2, 2] = np.nan
    return data


def labels(count: int = 32, top: int = 10) -> np.ndarray:
    return np.arange(count) % top


#: Data that is wrong for this model -> columns, code, and a word that the sentence must hold.
DATA: dict[str, tuple[dict[str, np.ndarray], str, str]] = {
    "wrong name": ({"picture": images()}, "dataset_columns_mismatch", "image"),
    "wrong shape": ({"image": images(shape=(3, 8, 8))}, "dataset_shape_mismatch", "8"),
    "wrong dtype": ({"image": images(dtype="int64")}, "dataset_dtype_mismatch", "float32"),
    "not a number": ({"image": with_nans()}, "dataset_not_finite", "image"),
    "too few samples": ({"image": images(count=1)}, "dataset_too_few_samples", "1"),
    "labels out of range": ({"image": images(), "label": labels(top=12)}, "labels_out_of_range", "10"),
}


@pytest.mark.parametrize("case", DATA)
def test_data_that_does_not_fit(api: Api, uploaded: dict[str, str], case: str) -> None:
    """Told by the check of the data, at the POST of the job, or as the end of the job; always the same code."""
    columns, code, word = DATA[case]
    view = api.checked("datasets", npz(**columns), "data.npz", kind="tensors")
    if view["state"] == "rejected":
        error = view["error"]
    else:
        body = {"model_id": uploaded["model_id"], "calibration_dataset_id": view["id"], "recipe": STATIC}
        if "label" in columns:
            body |= {"evaluation_dataset_id": view["id"]}
        answer = api.http.post("/v1/jobs", json={**body, "targets": ["onnxruntime"]})
        if answer.status_code == 202:
            done = api.finished(answer.json()["id"])
            assert (done["state"], done["attempt"]) == ("failed", 1), done
            error = done["error"]
        else:
            assert answer.status_code == 422
            error = answer.json()
    assert error["code"] == code, error
    assert word in error["detail"] + str(error.get("errors", "")), error


#: Changes to a good request -> code, and a word that the answer must hold.
REQUESTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown method": ({"recipe": {"steps": [{"method": "quantize.magic"}]}}, "unknown_method", "quantize.static"),
    "unknown parameter": (
        {"recipe": {"steps": [{"method": "quantize.static", "bits": 3}]}},
        "unknown_field",
        "weight_bits",
    ),
    "unknown field": ({"colour": "red"}, "unknown_field", "colour"),
    "unknown target": ({"targets": ["abacus"]}, "target_unavailable", "onnxruntime"),
    "no gpu worker": ({"compute": "gpu"}, "target_unavailable", "gpu"),
    "no calibration data": ({"calibration_dataset_id": None}, "data_required", "calibration"),
    "planner": ({"recipe": "auto", "budget": {"trials": 1}}, "planner_unavailable", "recipe"),
    "limit without labels": ({"limits": {"max_metric_drop": 0.1}}, "labels_required", "label"),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_requests(api: Api, uploaded: dict[str, str], case: str) -> None:
    """Refused before anything is queued."""
    changes, code, word = REQUESTS[case]
    body: dict[str, Any] = {"recipe": STATIC, "targets": ["onnxruntime"], **uploaded, **changes}
    if "limits" in changes:
        unlabelled = api.checked("datasets", npz(image=images()), "unlabelled.npz", kind="tensors")
        body |= {"calibration_dataset_id": unlabelled["id"], "evaluation_dataset_id": unlabelled["id"]}
    answer = api.http.post("/v1/jobs", json=body)
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert problem["code"] == code, problem
    assert word in str(problem), problem
