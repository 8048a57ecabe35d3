"""A worker's life: it serves its queue, says what it offers, and runs what the database gives it."""

import subprocess
import sys

from tests.support.deployment import Deployment, tensors, wait_for


def test_a_check_is_run_and_recorded(service: Deployment) -> None:
    service.start_worker()
    job_id = service.add_check(tensors(samples=7))
    service.look()
    assert service.await_state(job_id, "succeeded", "failed").error is None
    dataset = service.dataset_of(job_id)
    assert dataset.state == "ready"
    assert dataset.facts is not None
    assert dataset.facts["samples"] == 7
    assert not list((service.settings.work_dir / "attempts").iterdir())


def test_one_look_drains_the_queue(service: Deployment) -> None:
    """Messages do not count: whoever looks goes on until nothing is left."""
    service.start_worker()
    jobs = [service.add_check() for _ in range(3)]
    service.look()
    for job_id in jobs:
        service.await_state(job_id, "succeeded")


def test_bad_data_is_rejected_without_another_attempt(service: Deployment) -> None:
    service.start_worker()
    job_id = service.add_check(b"not a zip")
    service.look()
    job = service.await_state(job_id, "failed")
    assert job.attempt == 1
    dataset = service.dataset_of(job_id)
    assert dataset.state == "rejected"
    assert dataset.error is not None
    assert dataset.error["code"]


def test_worker_says_what_it_offers(service: Deployment) -> None:
    worker = service.start_worker("cpu")
    (row,) = service.worker_rows()
    assert row.queue == "cpu"
    assert {"onnxruntime", "openvino", "torch"} <= set(row.targets)
    assert row.capabilities["cpu"]["processors"] >= 1
    assert row.capabilities["memory_bytes"] > 0
    sandbox = row.capabilities["sandbox"]
    assert {"limits", "no_new_privs"} <= set(sandbox["walls"])
    assert not set(sandbox["walls"]) & set(sandbox["missing"])
    seen = row.seen_at
    wait_for(lambda: service.worker_rows()[0].seen_at > seen, "heartbeat")
    worker.stop()
    assert service.live_workers() == []


def test_queue_gpu_needs_a_gpu(service: Deployment) -> None:
    environment = service.environment(PATH="/nonexistent")  # no nvidia-smi, whatever this machine has
    command = [sys.executable, "-m", "worker", "gpu"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, cwd=service.folder)
    assert ended.returncode != 0
    assert "no NVIDIA GPU" in ended.stderr
    assert "cpu" in ended.stderr


def test_importing_the_worker_loads_no_runtime(service: Deployment) -> None:
    code = "import sys, worker.main; print([m for m in ('torch', 'onnx', 'openvino', 'numpy') if m in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", code], env=service.environment(), capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "[]"
