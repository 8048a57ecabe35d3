"""`make load`, small: every part runs against a real service, and nothing is missed or refused."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = (
    "--seconds 0.2 --rounds 1 --connections 4 --streams 8 --events 6 --rate 10 --rows 2000 --requests 10 "
    "--mebibytes 2 --senders 2"
)


@pytest.mark.slow
def test_every_part_runs() -> None:
    argv = [sys.executable, "-m", "benchmarks.load", *SMALL.split()]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line for line in done.stdout.splitlines() if line.isalpha()] == ["reads", "streams", "lists", "uploads"]
