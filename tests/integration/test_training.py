"""Training that is killed goes on from its last epoch, in another process, and ends with the same file."""

import json
import time
from contextlib import suppress
from typing import Any

import psutil
import pytest

from tests.support.client import TERMINAL, Api
from tests.support.service import Service, alive, family

pytestmark = pytest.mark.xdist_group("service")

RECIPE = {"steps": [{"method": "quantize.aware_training", "epochs": 8, "weight_bits": 4}]}


def post(api: Api, uploaded: dict[str, str], name: str) -> str:
    data = {**uploaded, "training_dataset_id": uploaded["calibration_dataset_id"]}
    return str(api.post_job(**data, recipe=RECIPE, targets=["onnxruntime"], name=name)["id"])


def kill_after_an_epoch(service: Service, api: Api, job_id: str) -> None:
    """SIGKILL to the job's process once an epoch is over and others are to come."""
    deadline = time.monotonic() + 120
    while "Epoch 2 of 8" not in api.http.get(f"/v1/jobs/{job_id}/logs").text:
        assert api.get(f"/v1/jobs/{job_id}")["state"] not in TERMINAL
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for process in alive(family(service.process.pid)):
        with suppress(psutil.NoSuchProcess):  # a check may be ending
            if "worker.runner.child" in process.cmdline():
                process.kill()


@pytest.mark.slow
def test_a_killed_training_ends_with_the_same_file(
    running_service: Service, api: Api, uploaded: dict[str, str]
) -> None:
    whole = api.finished(post(api, uploaded, "whole"))
    assert whole["state"] == "succeeded", whole["error"]
    assert len(whole["metrics"]["curves"]["loss"]) == 8
    job_id = post(api, uploaded, "killed")
    kill_after_an_epoch(running_service, api, job_id)
    killed = api.finished(job_id)
    assert killed["state"] == "succeeded", killed["error"]
    assert killed["attempt"] == 2
    assert "within the next one, from a checkpoint" in api.http.get(f"/v1/jobs/{job_id}/logs").text
    assert digest(killed) == digest(whole)
    assert json.dumps(killed["metrics"]["curves"]) == json.dumps(whole["metrics"]["curves"])


def digest(job: dict[str, Any]) -> str:
    return str(job["artifacts"][0]["sha256"])
