"""Which pages there are, and what each has to hold."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from tools.reference import api, commands, errors, methods, settings, targets

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "docs" / "reference"
PAGES: Final[dict[str, Callable[[], str]]] = {
    "api": api.page,
    "cli": commands.page,
    "errors": errors.page,
    "methods": methods.page,
    "settings": settings.page,
    "targets": targets.page,
}


def contents() -> dict[Path, str]:
    """What each file has to hold."""
    return {FOLDER / f"{name}.md": page() for name, page in PAGES.items()}
