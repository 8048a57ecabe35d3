"""What a job may ask: the torch-free contract shared by the API and the engine.

One parameter class per method (`METHODS`), ordering rules, targets with their numeric grids (`TARGETS`), limits.
A method is one class, one line in `METHODS`, and its file in the engine.
"""

from app.recipes.errors import RecipeError, RecipeFault
from app.recipes.facts import DatasetFacts, ModelFacts
from app.recipes.limits import Limits
from app.recipes.methods import METHODS, Step
from app.recipes.recipe import Recipe, parse_recipe
from app.recipes.targets import TARGETS, Grid

__all__ = [
    "METHODS",
    "TARGETS",
    "DatasetFacts",
    "Grid",
    "Limits",
    "ModelFacts",
    "Recipe",
    "RecipeError",
    "RecipeFault",
    "Step",
    "parse_recipe",
]
