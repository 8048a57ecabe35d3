"""What one quantization spends: seconds, CPU seconds, and how far its memory grows. Needs nothing but Python."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/status")
#: Writing 5 here sets the peak of resident memory back to what is resident now (proc(5)).
_CLEAR = Path("/proc/self/clear_refs")


def _kilobytes(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])


@contextmanager
def spending() -> Iterator[dict[str, Any]]:
    """Fills in what passes inside: ``seconds``, ``cpu`` (seconds), ``grown_mb`` (peak above where it started)."""
    report: dict[str, Any] = {}
    _CLEAR.write_text("5")
    resident = _kilobytes("VmRSS")
    started, worked = time.perf_counter(), time.process_time()
    yield report
    report["seconds"] = time.perf_counter() - started
    report["cpu"] = time.process_time() - worked
    report["grown_mb"] = (_kilobytes("VmHWM") - resident) * 1024 / 1e6


def order() -> Any:
    """What this process is asked to do: a JSON object on the command line."""
    return json.loads(sys.argv[1])
