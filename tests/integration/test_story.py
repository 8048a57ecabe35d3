"""The whole story over HTTP with real processes: upload, compress, follow, download, verify, run."""

import base64
import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import psutil
import pytest

from tests.support.client import Api
from tests.support.digits import Digits

pytestmark = pytest.mark.xdist_group("service")

TARGETS = ["onnxruntime", "openvino", "torch"]
LIMITS = {"max_metric_drop": 0.02, "max_size_ratio": 0.9}


@pytest.fixture(scope="module")
def static(api: Api, uploaded: dict[str, str]) -> tuple[dict[str, Any], list[tuple[int, str, dict[str, Any]]]]:
    """A job to all targets, followed by its events to the end."""
    recipe = {"steps": [{"method": "quantize.static"}]}
    job = api.post_job(**uploaded, recipe=recipe, targets=TARGETS, limits=LIMITS, name="nightly", tags={"a": "b"})
    assert job["state"] == "queued"
    events = list(api.events(job["id"]))
    return api.get(f"/v1/jobs/{job['id']}"), events


def download(api: Api, artifact: dict[str, Any]) -> bytes:
    """The artifact's bytes, checked against everything that says what they are."""
    answer = api.http.get(artifact["download_url"])
    assert answer.status_code == 200
    digest = hashlib.sha256(answer.content).digest()
    assert digest.hex() == artifact["sha256"]
    assert len(answer.content) == artifact["size_bytes"]
    assert answer.headers["Content-Digest"] == f"sha-256=:{base64.b64encode(digest).decode()}:"
    return answer.content


def test_it_succeeds_and_tells_what_was_measured(
    static: tuple[dict[str, Any], list[Any]], digits: Digits, uploaded: dict[str, str]
) -> None:
    job, _ = static
    assert job["state"] == "succeeded", job["error"]
    assert job["gate"]["passed"]
    assert job["progress"] == 1
    assert job["attempt"] == 1
    for target in TARGETS:
        before, after = job["metrics"]["baseline"][target], job["metrics"]["artifacts"][target]
        assert after["size_bytes"] < before["size_bytes"]
        assert before["metric"]["value"] == pytest.approx(digits.accuracy, abs=0.005)
        assert after["metric"]["value"] > digits.accuracy - 0.02
        low, high = after["metric"]["ci95"]
        assert low <= after["metric"]["value"] <= high
        assert after["latency_ms"]["p50"] > 0
        assert after["fidelity"]["sqnr_db"] > 15
        assert after["evaluation"] == job["metrics"]["baseline"][target]["evaluation"]
        assert after["evaluation"]["samples"] == len(digits.labels)
        assert after["evaluation"]["dataset_id"] == uploaded["evaluation_dataset_id"]


def test_events_tell_the_story_in_order_and_resume(
    static: tuple[dict[str, Any], list[tuple[int, str, dict[str, Any]]]], api: Api
) -> None:
    job, events = static
    numbers = [number for number, _, _ in events]
    assert numbers == sorted(set(numbers))
    states = [data["state"] for _, kind, data in events if kind == "state"]
    assert states[-2:] == ["running", "succeeded"]
    phases = [data["phase"] for _, kind, data in events if kind == "progress"]
    assert set(phases) == {"reading", "compressing", "exporting", "measuring"}
    middle = numbers[len(numbers) // 2]
    assert list(api.events(job["id"], last=middle)) == [event for event in events if event[0] > middle]


def test_artifacts_run_in_their_runtimes(static: tuple[dict[str, Any], list[Any]], api: Api, digits: Digits) -> None:
    job, _ = static
    made = {artifact["target"]: artifact for artifact in job["artifacts"]}
    assert set(made) == set(TARGETS)

    session = onnxruntime.InferenceSession(download(api, made["onnxruntime"]), providers=["CPUExecutionProvider"])
    (name,) = [value.name for value in session.get_inputs()]
    assert name == "image"
    measured = job["metrics"]["artifacts"]["onnxruntime"]["metric"]["value"]
    assert _accuracy(session.run(None, {name: digits.images})[0], digits) == pytest.approx(measured, abs=1e-3)


def test_openvino_artifact_runs(
    static: tuple[dict[str, Any], list[Any]], api: Api, digits: Digits, tmp_path: Path
) -> None:
    job, _ = static
    (artifact,) = [made for made in job["artifacts"] if made["target"] == "openvino"]
    zipfile.ZipFile(io.BytesIO(download(api, artifact))).extractall(tmp_path)
    (path,) = tmp_path.rglob("*.xml")
    model = openvino.compile_model(path, "CPU")
    assert _accuracy(model(digits.images)[0], digits) > digits.accuracy - 0.02


def test_torch_artifact_needs_torch_alone(
    static: tuple[dict[str, Any], list[Any]], api: Api, digits: Digits, tmp_path: Path
) -> None:
    """A fresh interpreter without this project on its path loads and runs it."""
    job, _ = static
    (artifact,) = [made for made in job["artifacts"] if made["target"] == "torch"]
    (tmp_path / "model.pt2").write_bytes(download(api, artifact))
    np.save(tmp_path / "images.npy", digits.images)
    code = """
import numpy, torch
program = torch.export.load("model.pt2").module()
numpy.save("out.npy", program(torch.from_numpy(numpy.load("images.npy"))).detach().numpy())
"""
    subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, check=True, env={"HOME": str(tmp_path)})
    assert _accuracy(np.load(tmp_path / "out.npy"), digits) > digits.accuracy - 0.02


def test_manifest_names_what_it_was_made_of(static: tuple[dict[str, Any], list[Any]], api: Api, digits: Digits) -> None:
    job, _ = static
    artifact = job["artifacts"][0]
    manifest = api.get(f"/v1/artifacts/{artifact['id']}/manifest")
    text = str(manifest)
    for content in (digits.model, digits.calibration, digits.evaluation):
        assert hashlib.sha256(content).hexdigest() in text
    assert "quantize.static" in text
    assert job["id"] in text


def test_ranges_and_etag(static: tuple[dict[str, Any], list[Any]], api: Api) -> None:
    artifact = static[0]["artifacts"][0]
    url = f"/v1/artifacts/{artifact['id']}/content"
    whole = api.http.get(url)
    part = api.http.get(url, headers={"Range": "bytes=10-19"})
    assert part.status_code == 206
    assert part.content == whole.content[10:20]
    again = api.http.get(url, headers={"If-None-Match": whole.headers["ETag"]})
    assert again.status_code == 304


def test_dynamic_needs_no_data(api: Api, uploaded: dict[str, str], digits: Digits) -> None:
    recipe = {"steps": [{"method": "quantize.dynamic"}]}
    job = api.post_job(model_id=uploaded["model_id"], recipe=recipe, targets=["onnxruntime"])
    done = api.finished(job["id"])
    assert done["state"] == "succeeded", done["error"]
    session = onnxruntime.InferenceSession(download(api, done["artifacts"][0]), providers=["CPUExecutionProvider"])
    assert _accuracy(session.run(None, {"image": digits.images})[0], digits) > digits.accuracy - 0.02
    assert "metric" not in done["metrics"]["artifacts"]["onnxruntime"]


def test_limits_not_met_keeps_what_was_measured(api: Api, uploaded: dict[str, str]) -> None:
    recipe = {"steps": [{"method": "quantize.static"}]}
    job = api.post_job(**uploaded, recipe=recipe, targets=["onnxruntime"], limits={"max_size_ratio": 0.01})
    done = api.finished(job["id"])
    assert done["state"] == "failed"
    assert done["error"]["code"] == "limits_not_met"
    assert "max_size_ratio" in done["error"]["detail"]
    assert not done["gate"]["passed"]
    assert done["attempt"] == 1
    assert download(api, done["artifacts"][0])
    assert done["metrics"]["artifacts"]["onnxruntime"]["size_bytes"] > 0


def test_a_job_waits_for_the_checks_of_its_inputs(api: Api, digits: Digits) -> None:
    """Posted while its inputs are still checking, it starts when they are ready."""
    model = api.upload("models", digits.model, "again.pt2")
    assert model["state"] == "checking"
    recipe = {"steps": [{"method": "quantize.dynamic"}]}
    job = api.post_job(model_id=model["id"], recipe=recipe, targets=["onnxruntime"])
    assert api.finished(job["id"])["state"] == "succeeded"
    assert api.get(f"/v1/models/{model['id']}")["state"] == "ready"


def test_cancel_of_a_running_job(api: Api, uploaded: dict[str, str]) -> None:
    recipe = {"steps": [{"method": "quantize.static", "samples": 256, "calibration": "entropy"}]}
    job = api.post_job(**uploaded, recipe=recipe, targets=TARGETS)
    for _, kind, data in api.events(job["id"]):
        if kind == "progress":
            assert data["phase"]
            break
    assert api.http.post(f"/v1/jobs/{job['id']}:cancel").status_code == 202
    assert api.finished(job["id"], timeout_s=30)["state"] == "canceled"


def test_a_killed_process_continues_from_its_checkpoint(api: Api, uploaded: dict[str, str]) -> None:
    """``kill -9`` after the step, while the targets are exported: the next attempt does not do the step again."""
    job = api.post_job(**uploaded, recipe={"steps": [{"method": "quantize.static"}]}, targets=TARGETS[:2])
    for _, kind, data in api.events(job["id"]):
        if kind == "progress" and data["phase"] == "exporting":
            break
    (process,) = [
        process
        for process in psutil.process_iter(["cmdline"])
        if (command := process.info["cmdline"]) and "worker.runner.child" in command[:3] and job["id"] in command[-1]
    ]
    process.kill()
    done = api.finished(job["id"])
    assert (done["state"], done["attempt"]) == ("succeeded", 2), done["error"]
    assert "Continuing after step 1 of 1" in api.http.get(f"/v1/jobs/{job['id']}/logs").text


def _accuracy(scores: np.ndarray, digits: Digits) -> float:
    return float((scores.argmax(1) == digits.labels).mean())
