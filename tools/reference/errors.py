"""Every code of an error, from the error tree and from where the others stand in the sources."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import app.main  # noqa: F401  # every error class is defined by what this imports
from app.errors import ApiError
from tools.reference.markdown import code, table
from tools.reference.markdown import page as _page

ROOT: Final = Path(__file__).parents[2]
#: How codes stand in the sources.
PATTERNS: Final = (
    r'code(?:: str)?\s*=\s*"([a-z_]+)"',
    r'"code": "([a-z_]+)"',
    r'RecipeFault\(\s*"([a-z_]+)"',
    r'_error\("([a-z_]+)"',
    r'Refused\("([a-z_]+)"',
    r'(?:Fault|Death|UserError|Failure|InvalidDataset|InvalidModel|Unsupported)\(\s*(?:code=)?"([a-z_]+)"',
    r'^[A-Z_]+: Final = "([a-z_]+)"',
)
#: Where they stand, and what that means.
SOURCES: Final = {
    "app": "In answers of the API, and of jobs that the service itself ends",
    "worker/runner": "Of jobs and checks whose process failed",
    "worker/engine": "Of jobs and checks, from what was read or computed",
}
ABOUT = """
Codes are stable; `detail` says what is wrong and what would work. When each comes, and what to do, is in
[errors.md](../errors.md). In the SDK the statuses are classes: [client.md](../client.md).
"""


def page() -> str:
    """docs/reference/errors.md."""
    classes = sorted(tree(), key=lambda kind: (kind.status, kind.code, kind.__name__))
    rows = [[str(kind.status), code(kind.code), kind.title, _told(kind)] for kind in classes]
    parts = [f"## Classes of the API\n\n{table(['status', 'code', 'title', 'what'], rows)}"]
    for folder, meaning in SOURCES.items():
        words = "\n".join(f"- `{word}`" for word in sorted(codes()[folder]))
        parts.append(f"## {meaning}\n\n{words}")
    return _page("Error codes", ABOUT, *parts)


def tree(root: type[ApiError] = ApiError) -> set[type[ApiError]]:
    """The error classes of the application."""
    return {root} | {
        kind for child in root.__subclasses__() if child.__module__.startswith("app.") for kind in tree(child)
    }


def codes() -> dict[str, set[str]]:
    """The codes that each folder of sources names."""
    found: dict[str, set[str]] = defaultdict(set)
    found["app"] = {kind.code for kind in tree()}
    for folder in SOURCES:
        for path in (ROOT / folder).rglob("*.py"):
            found[folder].update(_codes_of(path))
    return found


def _codes_of(path: Path) -> Iterator[str]:
    text = path.read_text("utf-8")
    for pattern in PATTERNS:
        if not pattern.startswith("^") or path.name == "codes.py":
            yield from re.findall(pattern, text, re.MULTILINE)


def _told(kind: type[ApiError]) -> str:
    return (kind.__doc__ or "").strip().split("\n")[0]
