"""The client against a real embedded service: what a user does, through the SDK and the command."""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from modelpress import (
    AsyncClient,
    Client,
    Conflict,
    Delivery,
    InvalidRequest,
    JobRequest,
    NotFound,
    PermissionDenied,
)
from torch import nn

from tests.support.service import Service

pytestmark = pytest.mark.xdist_group("service")  # of test_story.py: one service serves both
SAMPLES = 200
STATIC = {"steps": [{"method": "quantize.static", "samples": 64}]}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small CNN, data for it, and labels that are its own answers."""
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(32 * 9, 10),
    ).eval()  # fmt: skip
    images = np.random.default_rng(0).normal(size=(SAMPLES, 1, 8, 8)).astype(np.float32)
    labels = model(torch.from_numpy(images)).argmax(1).numpy()
    program = torch.export.export(
        model, (torch.from_numpy(images[:2]),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    torch.export.save(program, folder / "net.pt2")
    torch.save(model, folder / "net.pt")
    np.savez(folder / "calibration.npz", input=images[:64])
    np.savez(folder / "evaluation.npz", input=images, label=labels)
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture
def client(running_service: Service) -> Iterator[Client]:
    with Client(running_service.url, running_service.key()) as made:
        yield made


@pytest.fixture
def start(running_service: Service, tmp_path: Path) -> Callable[..., "subprocess.Popen[str]"]:
    env = {
        **os.environ,
        "MODELPRESS_URL": running_service.url,
        "MODELPRESS_KEY": running_service.key(),
        "COLUMNS": "160",
    }

    def starts(*args: object) -> "subprocess.Popen[str]":
        line = [sys.executable, "-c", "from modelpress.cli.main import main; main()", *map(str, args)]
        pipe = subprocess.PIPE
        return subprocess.Popen(line, env=env, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True)

    return starts


@pytest.fixture
def run(start: Callable[..., "subprocess.Popen[str]"]) -> Callable[..., tuple[int, str, str]]:
    def runs(*args: object) -> tuple[int, str, str]:
        process = start(*args)
        out, err = process.communicate(timeout=120)
        assert "Traceback" not in err, err
        return process.returncode, out, err

    return runs


def test_the_main_job_through_the_sdk(client: Client, files: dict[str, Path], tmp_path: Path) -> None:
    model = client.models.upload(files["net.pt2"], metadata={"team": "vision"})
    calibration = client.datasets.upload(files["calibration.npz"])
    evaluation = client.datasets.upload(files["evaluation.npz"])
    request = JobRequest(
        model_id=model.id,
        calibration_dataset_id=calibration.id,
        evaluation_dataset_id=evaluation.id,
        recipe=STATIC,
        targets=["onnxruntime", "openvino"],
        limits={"max_metric_drop": 0.1},
        name="integration",
        tags={"kind": "test"},
    )
    job = client.jobs.create(request)  # while its inputs are still being checked
    events = list(client.jobs.events(job.id))
    states = [event.data["state"] for event in events if event.type == "state"]
    assert states == ["queued", "running", "succeeded"], client.jobs.logs(job.id)
    assert [int(event.id) for event in events] == sorted(int(event.id) for event in events)
    later = list(client.jobs.events(job.id, after=events[-3].id))
    assert [event.id for event in later] == [event.id for event in events[-2:]]
    job = job.wait(timeout_s=5)
    assert (job.state, job.progress, job.error) == ("succeeded", 1.0, None)
    assert client.models.get(model.id).inputs is not None
    assert client.datasets.get(evaluation.id).samples == SAMPLES
    assert job.gate is not None and job.gate.passed
    assert job.metrics is not None and job.metrics.baseline is not None and job.metrics.artifacts is not None
    for target in request.targets:
        before, after = job.metrics.baseline[target], job.metrics.artifacts[target]
        assert before.metric is not None and before.metric.value == 1.0
        assert after.metric_drop is not None and after.metric_drop.value <= 0.1
        assert after.evaluation is not None and after.evaluation.samples == SAMPLES
        assert before.latency_ms is not None and before.latency_ms["p50"] > 0
    assert job.artifacts is not None
    for target in request.targets:
        artifact = job.artifact(target)
        file = artifact.download(tmp_path)
        assert hashlib.sha256(file.read_bytes()).hexdigest() == artifact.sha256
        assert client.artifacts.manifest(artifact.id)
        assert file.suffix != ".zip" or zipfile.is_zipfile(file)
    assert client.models.download(model.id, tmp_path).read_bytes() == files["net.pt2"].read_bytes()
    assert "quantize.static" in client.jobs.logs(job.id)
    assert job.id in [one.id for one in client.jobs.list(state="succeeded", name="integration")]
    with pytest.raises(Conflict) as caught:
        client.jobs.cancel(job.id)
    assert caught.value.code == "job_already_finished"
    client.jobs.delete(job.id)
    client.models.delete(model.id)
    for lost in (lambda: client.jobs.get(job.id), lambda: client.models.get(model.id)):
        with pytest.raises(NotFound):
            lost()


def test_the_command_keeps_what_passes_and_refuses_what_does_not(
    run: Callable[..., tuple[int, str, str]], files: dict[str, Path], tmp_path: Path
) -> None:
    asked = [
        "compress", files["net.pt2"], "--calibration", files["calibration.npz"], "--evaluation",
        files["evaluation.npz"], "--method", "quantize.static", "--target", "onnxruntime",
    ]  # fmt: skip
    code, out, err = run(*asked, "--max-drop", 0.1, "--param", "samples=64", "-o", "good")
    assert code == 0, err
    for row in ("size ratio", "accuracy, float", "evaluation samples", "drop", "SQNR", "latency p50", "speed-up"):
        assert row in out
    names = sorted(path.name for path in (tmp_path / "good").iterdir())
    assert len(names) == 2
    assert names[1] == f"{names[0]}.manifest.json"
    code, out, err = run(*asked, "--min-sqnr-db", 200, "--json", "-o", "bad")
    assert code == 3, err
    job = json.loads(out)["job"]
    assert job["error"]["code"] == "limits_not_met"
    assert not job["gate"]["passed"]
    assert list((tmp_path / "bad").iterdir()) == []
    code, out, _ = run("jobs", "report", job["id"])
    assert (code, "failed: min_sqnr_db" in out) == (0, True)

    asked_for = {"model_id": job["model_id"], "recipe": "preset:fast", "targets": ["onnxruntime"]}
    data = {role: job[role] for role in ("calibration_dataset_id", "evaluation_dataset_id")}
    (tmp_path / "request.json").write_text(json.dumps({**asked_for, **data}))
    code, out, err = run("jobs", "estimate", "request.json")
    assert (code, "size, onnxruntime: " in out, "time: " in out) == (0, True, True), err
    code, out, err = run("jobs", "create", "request.json")
    assert (code, out.startswith("job_")) == (0, True), err
    assert run("jobs", "cancel", out.strip())[0] == 0
    (tmp_path / "request.json").write_text(json.dumps({**asked_for, "modle_id": 1}))
    code, _, err = run("jobs", "create", "request.json")
    assert (code, "modle_id" in err) == (2, True), err

    artifact = job["artifacts"][0]["id"]
    code, out, _ = run("artifacts", "packages", artifact, "--json")
    assert (code, {one["layout"]: one["available"] for one in json.loads(out)}) == (0, {"triton": True, "kserve": True})
    code, _, err = run("artifacts", "package", artifact, "triton", "--name", "net", "-o", "net.zip")
    assert code == 0, err
    assert "net/config.pbtxt" in zipfile.ZipFile(tmp_path / "net.zip").namelist()


def test_refusals_help(run: Callable[..., tuple[int, str, str]], files: dict[str, Path], client: Client) -> None:
    code, _, err = run("models", "upload", files["net.pt"])
    assert (code, "unsafe_format" in err, ".pt2" in err) == (4, True, True), err
    code, _, err = run("compress", files["net.pt2"], "--method", "quantize.magic", "--target", "onnxruntime")
    assert (code, "/recipe/steps/0/method: " in err, "quantize.static" in err) == (4, True, True), err
    with pytest.raises(InvalidRequest) as caught:
        client.jobs.create(JobRequest(model_id="mdl_none", recipe=STATIC, targets=["abacus"]))
    assert any(fault.pointer == "/targets/0" for fault in caught.value.errors)


def test_ctrl_c_cancels(start: Callable[..., "subprocess.Popen[str]"], files: dict[str, Path], client: Client) -> None:
    process = start(
        "compress", files["net.pt2"], "--calibration", files["calibration.npz"], "--method", "quantize.static",
        "--target", "onnxruntime", "--target", "openvino", "--target", "torch",
    )  # fmt: skip
    assert process.stderr is not None
    job_id = next(line.split()[1] for line in process.stderr if line.startswith("job job_"))
    next(line for line in process.stderr if "job running" in line)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert client.jobs.get(job_id).state == "canceled"


def test_administration_through_the_async_client(running_service: Service) -> None:
    async def session() -> None:
        async with AsyncClient(running_service.url, running_service.key()) as operator:
            assert "quantize.static" in [method.name async for method in operator.methods.list()]
            assert {"onnxruntime", "openvino", "torch"} <= {target.name async for target in operator.targets.list()}
            assert [preset.name async for preset in operator.presets.list()]
            workspace = await operator.workspaces.create("team-b")
            assert workspace.id in [one.id async for one in operator.workspaces.list()]
            key = await operator.keys.create("ci", "reader", workspace_id=workspace.id)
            async with AsyncClient(running_service.url, key.key) as reader:
                assert [job async for job in reader.jobs.list()] == []
                with pytest.raises(PermissionDenied):
                    await reader.keys.create("more", "admin")
            mine = await operator.keys.create("mine")
            newer = await operator.keys.rotate(mine.id, overlap_s=60)
            assert (newer.replaces, newer.name) == (mine.id, "mine")
            await operator.keys.delete(newer.id)
            changed = await operator.workspaces.update(workspace.id, {"jobs": 3, "uploads": None})
            assert changed.quotas is not None
            assert (changed.quotas.jobs, changed.quotas.uploads) == (3, None)
            used = await operator.usage.get(workspace_id=workspace.id)
            assert used.limits is not None and used.limits.jobs == 3
            assert (await operator.usage.get()).workers
            revoked = [one async for one in operator.audit.list(action="revoke_key", outcome="ok")]
            assert revoked[0].object_id == newer.id

    asyncio.run(session())


def test_lists_of_the_command(run: Callable[..., tuple[int, str, str]]) -> None:
    groups = ("models", "datasets", "jobs", "methods", "targets", "presets", "keys", "workspaces", "webhooks", "audit")
    outputs: dict[str, Any] = {group: run(group, "list", "--json") for group in groups}
    assert {group: output[0] for group, output in outputs.items()} == dict.fromkeys(groups, 0), outputs
    assert {item["name"] for item in json.loads(outputs["methods"][1])} >= {"quantize.static", "quantize.dynamic"}
    for command, said in ((("targets", "list"), "onnxruntime"), (("usage", "show"), "stored_bytes: ")):
        code, out, _ = run(*command)
        assert (code, said in out) == (0, True)
    workspace = json.loads(outputs["workspaces"][1])[0]["id"]
    code, out, err = run("workspaces", "update", workspace, "--jobs", "100", "--uploads", "default", "--json")
    assert (code, json.loads(out)["quotas"]) == (0, {"stored_bytes": None, "jobs": 100, "uploads": None}), err
    assert run("workspaces", "update", workspace, "--jobs", "many")[0] == 2
    assert run("uploads", "show", "upl_none")[0] == 4


def redelivered(client: Client, webhook_id: str, delivery_id: str) -> Delivery:
    """Sends it again as soon as the first try, which goes nowhere, has ended."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return client.webhooks.redeliver(webhook_id, delivery_id)
        except Conflict as refusal:
            assert refusal.code == "delivery_in_progress"
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_webhooks(client: Client) -> None:
    webhook = client.webhooks.create("https://93.184.216.34/hook", ["job.failed"], name="ci")
    assert webhook.secret is not None and webhook.secret.startswith("whsec_")
    assert webhook.secret not in repr(webhook)
    assert client.webhooks.rotate(webhook.id).secret not in (None, webhook.secret)
    changed = client.webhooks.update(webhook.id, events=["job.succeeded", "job.failed"], enabled=True)
    assert changed == client.webhooks.get(webhook.id)
    assert set(changed.events) == {"job.succeeded", "job.failed"}
    sent = client.webhooks.test(webhook.id)
    assert sent.event == "webhook.test"
    assert redelivered(client, webhook.id, sent.id).id
    assert sent.id in [one.id for one in client.webhooks.deliveries(webhook.id)]
    client.webhooks.delete(webhook.id)
    assert webhook.id not in [one.id for one in client.webhooks.list()]
