"""A client that a generator makes of the OpenAPI document speaks with a running service."""

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.service import Service, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("service")]

#: Operations with media types that the generator has no words for. Where a body can be of two kinds, as of an
#: upload, it writes code that does not run (0.29.1: `Unset` is not imported); uploads are made without it here.
BEYOND = {
    "PATCH /v1/uploads/{upload_id}",
    "GET /v1/artifacts/{artifact_id}/packages/{layout}",
    "GET /v1/signing-key",
}


@pytest.fixture
def generated(running_service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a package, made of what the service says of itself."""
    document = tmp_path / "openapi.json"
    document.write_text(httpx.get(f"{running_service.url}/openapi.json").text)
    (tmp_path / "config.yml").write_text("post_hooks: []")
    where = ("--path", document, "--config", tmp_path / "config.yml", "--output-path", tmp_path / "generated_client")
    argv = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none", *where]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    told = done.stdout + done.stderr
    assert set(re.findall(r"WARNING parsing (\S+ \S+) within", told)) == BEYOND, told
    assert told.count("WARNING") == len(BEYOND), told
    monkeypatch.syspath_prepend(tmp_path)
    return "generated_client"


def test_a_generated_client_runs_a_job(generated: str, running_service: Service, uploaded: dict[str, str]) -> None:
    module = importlib.import_module(generated)
    models = importlib.import_module(f"{generated}.models")
    client = module.AuthenticatedClient(
        running_service.url, token=running_service.key(), raise_on_unexpected_status=True, timeout=httpx.Timeout(60)
    )

    def call(place: str, *arguments: Any, **named: Any) -> Any:
        endpoint = importlib.import_module(f"{generated}.api.{place}")
        return endpoint.sync(*arguments, client=client, **named)

    with client:
        assert "quantize.static" in {method.name for method in call("catalog.list_methods").items}
        recipe = {"steps": [{"method": "quantize.static", "samples": 32}]}
        request = {**uploaded, "recipe": recipe, "targets": ["onnxruntime"]}
        job = call("jobs.create_job", body=models.CreateJobJobRequest.from_dict(request))
        wait_until(lambda: call("jobs.get_job", job.id).state not in ("queued", "running"), 120, "the job's end")
        job = call("jobs.get_job", job.id)
        assert job.state == "succeeded"
        (artifact,) = job.artifacts
        assert (artifact.target, artifact.format_) == ("onnxruntime", "onnx")
        assert call("jobs.list_jobs").items[0].id == job.id
        assert call("usage.get_usage").limits.requests_per_s > 0
        assert call("jobs.get_job", "job_of_nobody").code == "job_not_found"
