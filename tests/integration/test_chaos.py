"""`make chaos` in two minutes: whatever dies, freezes or is emptied, no job is lost and none runs twice at once."""

import subprocess
import sys
from pathlib import Path

import pytest

CHAOS = Path(__file__).parents[2] / "benchmarks" / "chaos.py"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_nothing_is_lost_and_nothing_runs_twice(tmp_path: Path) -> None:
    options = ["--jobs", "24", "--workers", "3", "--minutes", "2", "--seed", "1", "--keep", tmp_path / "chaos"]
    done = subprocess.run([sys.executable, CHAOS, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "freeze supervisor" in done.stdout
