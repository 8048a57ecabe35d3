"""Training that is killed goes on from its last epoch, in another process, and ends with the same file."""

import json
import re
import time
from contextlib import suppress
from typing import Any

import psutil
import pytest

from tests.support.client import TERMINAL, Api
from tests.support.service import Service, alive, family

pytestmark = pytest.mark.xdist_group("service")

RECIPES: dict[str, list[dict[str, Any]]] = {
    "quantization": [{"method": "quantize.aware_training", "epochs": 8, "weight_bits": 4}],
    # The step that trains starts from what another one has made, and another one follows.
    "pipeline": [
        {"method": "prune.channels", "ratio": 0.3, "round_to": 1},
        {"method": "distill", "epochs": 5, "learning_rate": 2e-3, "batch_size": 8, "losses": {"features": {}}},
        {"method": "quantize.static"},
    ],
}


def post(api: Api, uploaded: dict[str, str], name: str, steps: list[dict[str, Any]]) -> str:
    data = {**uploaded, "training_dataset_id": uploaded["calibration_dataset_id"]}
    return str(api.post_job(**data, recipe={"steps": steps}, targets=["onnxruntime"], name=name)["id"])


def kill_after_two_epochs(service: Service, api: Api, job_id: str) -> None:
    """SIGKILL to the job's process once three epochs are over: the checkpoint of the second has been collected."""
    deadline = time.monotonic() + 120
    while "Epoch 3 of" not in api.http.get(f"/v1/jobs/{job_id}/logs").text:
        assert api.get(f"/v1/jobs/{job_id}")["state"] not in TERMINAL
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for process in alive(family(service.process.pid)):
        with suppress(psutil.NoSuchProcess):  # a check may be ending
            if "worker.runner.child" in process.cmdline():
                process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [pytest.param("quantization", marks=pytest.mark.long), "pipeline"])
def test_a_killed_training_ends_with_the_same_file(
    recipe: str, running_service: Service, api: Api, uploaded: dict[str, str]
) -> None:
    steps = RECIPES[recipe]
    whole = api.finished(post(api, uploaded, "whole", steps))
    assert whole["state"] == "succeeded", whole["error"]
    assert len(whole["metrics"]["curves"]["loss"]) == max(step.get("epochs", 0) for step in steps)
    job_id = post(api, uploaded, "killed", steps)
    kill_after_two_epochs(running_service, api, job_id)
    killed = api.finished(job_id)
    assert killed["state"] == "succeeded", killed["error"]
    assert killed["attempt"] == 2
    log = api.http.get(f"/v1/jobs/{job_id}/logs").text
    assert "within the next one, from a checkpoint" in log
    (epoch,) = re.findall(r"Training goes on after epoch (\d+) of", log)
    assert int(epoch) >= 2
    assert digest(killed) == digest(whole)
    assert json.dumps(killed["metrics"]["curves"]) == json.dumps(whole["metrics"]["curves"])
    rows = [[{**row, "seconds": 0} for row in job["metrics"]["steps"]] for job in (whole, killed)]
    assert rows[0] == rows[1]


def digest(job: dict[str, Any]) -> str:
    return str(job["artifacts"][0]["sha256"])
