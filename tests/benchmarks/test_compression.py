"""``make bench-compression`` on a network with a quarter of the channels, in one epoch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "compression.py"
NETWORK = "resnet18-quarter"
SIDES = ("baseline", "artifacts")


def measured(cache: Path) -> tuple[str, dict[str, dict[str, Any]], dict[Path, int]]:
    """The tables at the end, the record of each trial, and when each was written."""
    command = [sys.executable, BENCHMARK, "--network", NETWORK, "--epochs", "1", "--stage", "E,H", "--cache", cache]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    files = sorted((cache / "compression").rglob("record.json"))
    records = {path.parent.name: json.loads(path.read_text()) for path in files}
    return done.stdout.partition("# All")[2], records, {path: path.stat().st_mtime_ns for path in files}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1700)
def test_it_measures_exported_files_and_goes_on_where_it_was(tmp_path: Path) -> None:
    tables, records, written = measured(tmp_path)
    assert not [record["error"] for record in records.values() if "error" in record]
    sides = {
        name.partition("-resnet18-quarter-")[2]: [record["metrics"][side]["onnxruntime"] for side in SIDES]
        for name, record in records.items()
    }
    drops = {name: after["metric_drop"]["value"] for name, (_, after) in sides.items()}
    float_model, small = sides["prune--distil--quantize-aware"]
    assert float_model["metric"]["value"] > 0.8
    assert float_model["size_bytes"] > 10 * small["size_bytes"]
    assert drops["prune--distil--quantize-aware"] < 0.15
    assert drops["soft-labels-and-labels--width-0-5"] < drops["labels-alone--width-0-5"]
    assert "distillation against labels alone" in tables
    assert "prune, distil, quantize aware" in tables
    again, _, untouched = measured(tmp_path)
    assert again == tables
    assert untouched == written
