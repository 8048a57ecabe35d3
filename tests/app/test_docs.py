"""The documentation keeps up with codes, paths and roles."""

import re
from pathlib import Path
from typing import Any

import pytest

from app.errors import ApiError

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]
#: How codes stand in the sources.
PATTERNS = (
    r'code(?:: str)?\s*=\s*"([a-z_]+)"',
    r'"code": "([a-z_]+)"',
    r'RecipeFault\(\s*"([a-z_]+)"',
    r'_error\("([a-z_]+)"',
    r'Refused\("([a-z_]+)"',
    r'(?:Fault|Death|UserError|Failure|InvalidDataset|InvalidModel|Unsupported)\(\s*(?:code=)?"([a-z_]+)"',
    r'^[A-Z_]+: Final = "([a-z_]+)"',
)
#: Where they stand.
SOURCES = ("app", "worker/runner", "worker/engine")


def _codes() -> set[str]:
    found = {error.code for error in _classes(ApiError)}
    for path in (path for folder in SOURCES for path in (ROOT / folder).rglob("*.py")):
        text = path.read_text()
        for pattern in PATTERNS:
            if not pattern.startswith("^") or path.name == "codes.py":
                found.update(re.findall(pattern, text, re.MULTILINE))
    return found


def _classes(root: type[ApiError]) -> set[type[ApiError]]:
    return {root} | {kind for child in root.__subclasses__() for kind in _classes(child) if kind.__name__ != "Other"}


def test_every_code_is_documented() -> None:
    documented = set(re.findall(r"`([a-z_]+)`", (ROOT / "docs/errors.md").read_text()))
    codes = _codes()
    assert len(codes) > 40
    assert codes - documented == set()


async def test_every_path_is_documented(api: Any) -> None:
    rows = dict(re.findall(r"^\| `(/\S*)` \| ([A-Z, ]+) \|$", (ROOT / "docs/api.md").read_text(), re.MULTILINE))
    paths = api.app.openapi()["paths"]
    assert rows == {path: ", ".join(sorted(method.upper() for method in methods)) for path, methods in paths.items()}
