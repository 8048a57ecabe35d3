"""`make demo`, as a user sees it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

DEMO = Path(__file__).parents[2] / "benchmarks" / "demo.py"


def left(folder: Path) -> list[str]:
    """Processes that still work in or on the demo's folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = [*(process.info["cmdline"] or ()), process.info["cwd"] or ""]
        if any(str(folder) in word for word in words):
            found.append(" ".join(words))
    return found


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_it_succeeds_twice_stops_when_told_and_leaves_nothing_running(tmp_path: Path) -> None:
    for _ in range(2):
        done = subprocess.run([sys.executable, DEMO, tmp_path / "demo"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        for figure in ("onnxruntime", "openvino", "size ratio", "accuracy", "719", "speed-up", "passed"):
            assert figure in done.stdout
        assert left(tmp_path) == []
    assert "Training" not in done.stdout
    names = {path.name for path in (tmp_path / "demo" / "out").iterdir()}
    assert {"model.int8.onnx", "model.int8.onnx.manifest.json"} <= names
    for number, status in ((signal.SIGINT, 1), (signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        process = subprocess.Popen(
            [sys.executable, DEMO, tmp_path / "demo"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith("job running"))
        process.send_signal(number)
        process.communicate(timeout=60)
        assert process.returncode == status
        until = time.monotonic() + 30
        while left(tmp_path) and time.monotonic() < until:
            time.sleep(0.2)
        assert left(tmp_path) == []
