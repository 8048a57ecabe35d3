"""What a worker offers agrees with what its engine can do."""

from pathlib import Path

import pytest

from app.config import Settings
from worker.engine.targets import TARGETS
from worker.runner import capabilities
from worker.runner.slot import open_slot


def test_the_offer_is_what_the_engine_says() -> None:
    assert set(capabilities.RUNTIMES) == set(TARGETS)
    available = {name for name, target in TARGETS.items() if target.available() is None}
    assert set(capabilities.targets(gpu=True)) == available


def test_only_a_worker_whose_jobs_may_open_the_gpu_offers_what_runs_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(capabilities.RUNTIMES, "tensorrt", ("torch",))
    monkeypatch.setattr(capabilities, "_DEVICES", tmp_path)
    assert "tensorrt" not in capabilities.targets(gpu=True)
    (tmp_path / "nvidia0").touch()
    assert "tensorrt" in capabilities.targets(gpu=True)
    slot = open_slot(Settings(_env_file=None, work_dir=tmp_path), "cpu")
    assert "tensorrt" not in slot.offer.targets
    assert "torch" in slot.offer.targets


def test_facts_about_the_machine() -> None:
    facts = capabilities.describe()
    assert facts["cpu"]["processors"] >= 1
    assert 0 < facts["memory_bytes"] < 2**50
    assert {"torch", "onnxruntime", "openvino"} <= set(facts["versions"])


def test_an_unknown_queue_is_refused() -> None:
    with pytest.raises(capabilities.CannotServeError, match="checks"):
        open_slot(Settings(_env_file=None), "fast")


def test_a_worker_says_what_a_job_may_use(tmp_path: Path) -> None:
    slot = open_slot(Settings(_env_file=None, work_dir=tmp_path, job_memory_bytes=3 * 2**30, job_threads=2), "checks")
    assert slot.offer.capabilities["job"] == {"memory_bytes": 3 * 2**30, "threads": 2}
    assert slot.offer.memory_bytes == slot.memory_bytes == 3 * 2**30
