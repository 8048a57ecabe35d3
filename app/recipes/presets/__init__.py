"""Recipes by name: one JSON file each beside this one, with its page in ``docs/presets/``."""

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from app.recipes.errors import RecipeError, RecipeFault

PREFIX = "preset:"


@dataclass(frozen=True)
class Preset:
    """A recipe that ``"recipe": "preset:<name>"`` stands for.

    Attributes:
        name: of its file, without the suffix.
        summary: one line for ``GET /v1/presets``: what it does, and the data that it needs.
        recipe: as a job would send it.
    """

    name: str
    summary: str
    recipe: dict[str, Any]


def _load() -> dict[str, Preset]:
    """Every preset in this folder, by name; a file with other fields than a preset has is a TypeError."""
    suffix = ".json"
    found = sorted(
        (file for file in files(__name__).iterdir() if file.name.endswith(suffix)), key=lambda file: file.name
    )
    names = [(file.name.removesuffix(suffix), file) for file in found]
    return {name: Preset(name=name, **json.loads(file.read_text("utf-8"))) for name, file in names}


PRESETS: dict[str, Preset] = _load()


def expand_preset(raw: object, *, pointer: str = "/recipe") -> object:
    """The recipe that ``preset:<name>`` stands for; anything else comes back as it is.

    Raises:
        RecipeError: ``unknown_preset``, listing those that there are.
    """
    if not isinstance(raw, str) or not raw.startswith(PREFIX):
        return raw
    name = raw.removeprefix(PREFIX)
    if name not in PRESETS:
        detail = f"no preset {name[:100]!r}; there are {', '.join(sorted(PRESETS))}"
        raise RecipeError([RecipeFault("unknown_preset", pointer, detail)])
    return PRESETS[name].recipe
