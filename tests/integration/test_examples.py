"""docs/examples/ against a running service: the steps of pipelines, and DVC's stage as it stands in its file."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest
import yaml
from modelpress import Client

from tests.support.service import Service

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
pytestmark = pytest.mark.xdist_group("service")  # of test_story.py: one service serves both


@pytest.fixture
def environment(running_service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELPRESS_URL", running_service.url)
    monkeypatch.setenv("MODELPRESS_KEY", running_service.key())


@pytest.mark.usefixtures("environment")
def test_the_steps_of_a_pipeline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    import pipeline_steps as steps

    files = (str(folder / name) for name in ("model.pt2", "calibration.npz", "evaluation.npz"))
    ids = json.loads(json.dumps(steps.upload(*files)))  # what an orchestrator keeps between two tasks
    (path,) = steps.fetch(steps.wait(steps.start(ids)), str(folder / "out"))
    session = onnxruntime.InferenceSession(path)
    sample = next(column for name, column in np.load(folder / "evaluation.npz").items() if name != "label")[:3]
    (scores,) = session.run(None, {session.get_inputs()[0].name: sample})
    assert scores.shape == (3, 10)
    monkeypatch.setattr(steps, "LIMITS", {"max_size_ratio": 0.001})
    over = steps.wait(steps.start(ids))
    with pytest.raises(RuntimeError, match="limits_not_met"):
        steps.fetch(over, str(folder / "broken"))
    assert list((folder / "broken").iterdir()) == []


@pytest.mark.usefixtures("environment")
def test_a_model_that_lies_in_a_bucket(folder: Path, s3: str) -> None:
    places = []
    for name in ("model.pt2", "calibration.npz"):
        httpx.put(f"{s3}/models/trained/{name}", content=(folder / name).read_bytes()).raise_for_status()
        places.append(f"s3://models/trained/{name}")
    argv = [sys.executable, EXAMPLES / "s3_source.py"]
    done = subprocess.run([*argv, *places], capture_output=True, text=True, check=True)
    with Client() as client:
        assert client.jobs.wait(done.stdout.strip()).state == "succeeded"
    done = subprocess.run(
        [*argv, "s3://models/other/model.pt2", places[1]], capture_output=True, text=True, check=False
    )
    assert "source_not_allowed" in done.stderr


@pytest.mark.usefixtures("environment")
def test_the_stage_of_dvc(folder: Path) -> None:
    stage: dict[str, Any] = yaml.safe_load((EXAMPLES / "dvc" / "dvc.yaml").read_text())["stages"]["compress"]
    params = yaml.safe_load((EXAMPLES / "dvc" / "params.yaml").read_text())
    (folder / "recipe.json").write_text((EXAMPLES / "dvc" / "recipe.json").read_text())
    command = stage["cmd"]
    for group, values in params.items():
        for name, value in values.items():
            command = command.replace(f"${{{group}.{name}}}", str(value))
    assert "$" not in command
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euc", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all((folder / name).exists() for name in (*stage["deps"], *stage["outs"]))
    assert json.loads((folder / "job.json").read_text())["job"]["state"] == "succeeded"
