"""The job's process as its supervisor sees it: lines on a pipe, and how it ends."""

import fcntl
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from worker.runner import child as entry
from worker.runner.messages import (
    ASSIGNMENT,
    MEASURE_LOCK_FD,
    REPORT,
    REPORT_FD,
    Assignment,
    Failure,
    Progress,
    Report,
    Result,
)
from worker.runner.reporting import PipeReporter, regular_file

Limit = Callable[[], None]


class Child:
    """A started job's process and its pipe."""

    def __init__(self, folder: Path, assignment: dict[str, Any], limit: Limit = lambda: None, lock: int = -1) -> None:
        (folder / "output").mkdir(exist_ok=True)
        (folder / ASSIGNMENT).write_text(json.dumps({"output": str(folder / "output"), **assignment}))
        read, write = os.pipe()

        def prepare() -> None:
            os.dup2(write, 20)
            if lock >= 0:
                os.dup2(lock, MEASURE_LOCK_FD)
            else:
                os.closerange(MEASURE_LOCK_FD, MEASURE_LOCK_FD + 1)
            os.dup2(20, REPORT_FD)
            limit()

        self.process = subprocess.Popen(
            [sys.executable, "-m", "worker.runner.child", str(folder)],
            preexec_fn=prepare,
            close_fds=False,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        os.close(write)
        self.pipe = os.fdopen(read, "rb")

    def reports(self) -> list[Report]:
        """Everything it reports until it ends."""
        with self.pipe:
            lines = self.pipe.read().splitlines()
        return [REPORT.validate_json(line) for line in lines]

    def end(self) -> tuple[int, str]:
        """Exit code and what it wrote to standard error."""
        _, log = self.process.communicate(timeout=120)
        return self.process.returncode, log


def outcome(folder: Path, assignment: dict[str, Any], **options: Any) -> tuple[list[Report], int, str]:
    child = Child(folder, assignment, **options)
    reports = child.reports()
    return reports, *child.end()


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, input=np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32), label=np.arange(40) % 3)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 3)).eval()
    program = torch.export.export(net, (torch.zeros(2, 6),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, tmp_path / "net.pt2")
    return tmp_path / "net.pt2"


def test_check_of_a_dataset(tmp_path: Path, dataset: Path) -> None:
    assignment = {"kind": "check_dataset", "dataset": str(dataset), "dataset_kind": "tensors"}
    reports, code, log = outcome(tmp_path, assignment)
    result = reports[-1]
    assert isinstance(result, Result)
    assert result.facts["samples"] == 40
    assert (code, log) == (0, "")


def test_check_of_a_dataset_loads_no_torch() -> None:
    program = "import sys, worker.runner.child, worker.runner.work.check_dataset as w; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_check_of_a_model(tmp_path: Path, model: Path) -> None:
    reports, code, _ = outcome(tmp_path, {"kind": "check_model", "model": str(model), "filename": "net.pt2"})
    result = reports[-1]
    assert isinstance(result, Result)
    assert result.facts["parameters"] == 6 * 64 + 64 + 64 * 3 + 3
    assert code == 0


def test_refused_dataset_is_a_failure_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(pickle.dumps({"x": 1}))
    reports, code, log = outcome(tmp_path, {"kind": "check_dataset", "dataset": str(tmp_path / "x")})
    failure = reports[-1]
    assert isinstance(failure, Failure)
    assert (failure.code, failure.user, code, log) == ("unsafe_format", True, 0, "")
    assert str(tmp_path) not in failure.detail


def test_recipe_that_cannot_be_run(tmp_path: Path, model: Path) -> None:
    recipe = {"steps": [{"method": "quantize.static", "sampels": 3}]}
    assignment = {"kind": "compress", "model": str(model), "recipe": recipe, "targets": ["onnxruntime"]}
    failure = outcome(tmp_path, assignment)[0][-1]
    assert isinstance(failure, Failure)
    assert (failure.code, failure.user) == ("unknown_field", True)


def test_fault_of_the_service_shows_no_traceback_to_the_user(tmp_path: Path) -> None:
    reports, code, log = outcome(tmp_path, {"kind": "check_dataset", "dataset": str(tmp_path / "never-fetched")})
    failure = reports[-1]
    assert isinstance(failure, Failure)
    assert (failure.code, failure.user, code) == ("internal_error", False, 0)
    assert "Traceback" in log
    assert "Traceback" not in failure.detail
    assert str(tmp_path) not in failure.detail


class Huge(nn.Module):
    """Needs 64 GB for one sample."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return input.repeat(1, 2**31).sum(1)


def test_out_of_memory(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(Huge(), (torch.zeros(1, 8),)), tmp_path / "huge.pt2")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (4 * 1024**3,) * 2)

    reports, code, _ = outcome(tmp_path, {"kind": "check_model", "model": str(tmp_path / "huge.pt2")}, limit=limit)
    failure = reports[-1]
    assert isinstance(failure, Failure)
    assert (failure.code, failure.user, code) == ("out_of_memory", False, 0)


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work_on_a_full_disk.py").write_text(
        "from pathlib import Path\ndef do(assignment, reporter):\n    Path('/dev/full').write_text('x')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(entry.WORK, "compress", "work_on_a_full_disk")
    assignment = Assignment(kind="compress", output=tmp_path)
    made = entry.outcome(tmp_path, assignment, PipeReporter(-1, None, tmp_path))
    assert isinstance(made, Failure)
    assert (made.code, made.user) == ("storage_full", False)


@pytest.mark.timeout(60)
def test_sigterm_ends_it(tmp_path: Path, model: Path, dataset: Path) -> None:
    child = Child(tmp_path, compress(model, dataset))
    while not isinstance(REPORT.validate_json(child.pipe.readline()), Progress):
        continue
    child.process.send_signal(signal.SIGTERM)
    code, _ = child.end()
    child.pipe.close()
    assert code == -signal.SIGTERM


def test_it_ends_with_its_parent(tmp_path: Path, model: Path, dataset: Path) -> None:
    (tmp_path / "output").mkdir()
    assignment = {"output": str(tmp_path / "output"), **compress(model, dataset)}
    (tmp_path / ASSIGNMENT).write_text(json.dumps(assignment))
    program = (
        "import os, subprocess, sys, time\n"
        "os.dup2(1, 3)\n"
        f"child = subprocess.Popen([sys.executable, '-m', 'worker.runner.child', {str(tmp_path)!r}], pass_fds=(3,))\n"
        "print(child.pid, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert "progress" in parent.stdout.readline()  # it has asked to end with its parent by now
        parent.kill()
        gone = psutil.wait_procs([child], timeout=10)[0] or child.status() == psutil.STATUS_ZOMBIE
    assert gone


def compress(model: Path, dataset: Path, **more: Any) -> dict[str, Any]:
    return {
        "kind": "compress",
        "model": str(model),
        "filename": "net.pt2",
        "calibration": str(dataset),
        "recipe": {"steps": [{"method": "quantize.static"}]},
        "targets": ["onnxruntime"],
        "limits": {"max_metric_drop": 1},
        **more,
    }


def test_a_job_and_its_continuation(tmp_path: Path, model: Path, dataset: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        reports, code, _ = outcome(tmp_path, compress(model, dataset), lock=lock.fileno())
    assert code == 0
    result = reports[-1]
    assert isinstance(result, Result)
    assert result.gate["passed"]
    (artifact,) = result.artifacts
    assert artifact.filename == "net.int8.onnx"
    assert (tmp_path / "output" / artifact.file).stat().st_size > 0
    (saved,) = [report for report in reports if report.type == "checkpoint"]
    resumed, code, _ = outcome(tmp_path, compress(model, dataset, checkpoint=str(tmp_path / "output" / saved.file)))
    last = resumed[-1]
    assert isinstance(last, Result)
    assert any("Continuing" in report.message for report in resumed if report.type == "log")
    assert last.artifacts[0].manifest["artifact"] == artifact.manifest["artifact"]


def test_the_measuring_lock_is_held_while_times_are_taken(tmp_path: Path) -> None:
    read, write = os.pipe()
    with (tmp_path / "lock").open("w") as mine, (tmp_path / "lock").open("w") as other:
        reporter = PipeReporter(write, regular_file(mine.fileno()), tmp_path)
        with reporter.measuring(), pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(read)
    os.close(write)


def test_a_lock_that_is_not_there_is_no_lock(tmp_path: Path) -> None:
    read, write = os.pipe()
    assert regular_file(write) is None
    assert regular_file(9_999) is None
    with PipeReporter(write, None, tmp_path).measuring():
        pass
    os.close(read)
    os.close(write)


def test_progress_is_throttled_and_never_goes_back(tmp_path: Path) -> None:
    read, write = os.pipe()
    reporter = PipeReporter(write, None, tmp_path)
    for index in range(2000):
        reporter.progress("compressing", index / 2000)
    reporter.progress("compressing", 0.1)
    reporter.progress("measuring", 0.2)
    reporter.progress("measuring", 1.0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = [REPORT.validate_json(line) for line in pipe]
    assert len(told) < 10
    fractions = [report.fraction for report in told if isinstance(report, Progress)]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert [report.phase for report in told if isinstance(report, Progress)][-1] == "measuring"
    assert all(report.eta_s is None or report.eta_s >= 0 for report in told if isinstance(report, Progress))
