"""Recipes by name: data, one entry each."""

from dataclasses import dataclass
from typing import Any

from app.recipes.errors import RecipeError, RecipeFault

PREFIX = "preset:"


@dataclass(frozen=True)
class Preset:
    """A recipe that ``"recipe": "preset:<name>"`` stands for."""

    name: str
    summary: str
    recipe: dict[str, Any]


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            name="fast",
            summary="int8 weights and activations with plain min-max ranges: done soonest; needs calibration data",
            recipe={"steps": [{"method": "quantize.static", "calibration": "minmax", "samples": 64}]},
        ),
        Preset(
            name="balanced",
            summary="int8 weights and activations with ranges of least squared error; needs calibration data",
            recipe={"steps": [{"method": "quantize.static"}]},
        ),
        Preset(
            name="no_data",
            summary="int8 weights, activations quantized as they come; needs no data",
            recipe={"steps": [{"method": "quantize.dynamic"}]},
        ),
    )
}


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
