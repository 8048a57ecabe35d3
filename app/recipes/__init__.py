"""What a job may ask: the torch-free contract shared by the API and the engine.

One parameter class per method (`METHODS`), ordering rules, targets with their numeric grids (`TARGETS`), limits.
A method is one class, one line in `METHODS`, and its file in the engine.
"""

from app.recipes.errors import RecipeError, RecipeFault
from app.recipes.facts import DatasetFacts, ModelFacts
from app.recipes.limits import Limits
from app.recipes.methods import METHODS, Step
from app.recipes.presets import PRESETS, Preset, expand_preset
from app.recipes.recipe import Recipe, check_targets, parse_recipe
from app.recipes.targets import TARGETS, Grid

__all__ = [
    "METHODS",
    "PRESETS",
    "TARGETS",
    "DatasetFacts",
    "Grid",
    "Limits",
    "ModelFacts",
    "Preset",
    "Recipe",
    "RecipeError",
    "RecipeFault",
    "Step",
    "check_targets",
    "expand_preset",
    "parse_recipe",
]
