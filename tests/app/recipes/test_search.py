"""Parameters of the architecture search."""

from typing import Any

import pytest

from app.recipes import RecipeError, parse_recipe
from app.recipes.methods import SearchArchitecture


def parsed(**parameters: Any) -> SearchArchitecture:
    recipe = parse_recipe({"steps": [{"method": "search.architecture", **parameters}]})
    assert parse_recipe(recipe.model_dump(mode="json")) == recipe
    (step,) = recipe.steps
    assert isinstance(step, SearchArchitecture)
    return step


def test_alone_it_is_a_good_job() -> None:
    step = parsed()
    assert (step.strategy, step.objective, step.limit, step.limit_ratio) == ("evolutionary", "metric", "macs", 0.5)
    assert step.needed == ("training",)
    assert step.widths[0] == 0.25
    assert step.widths[-1] == 1
    assert step.teacher


@pytest.mark.parametrize(
    "parameters",
    [
        {"limit_ratio": 1},
        {"limit_ratio": 0},
        {"widths": []},
        {"widths": [0.5, 1.5]},
        {"widths": [0, 1]},
        {"strategy": "random"},
        {"objective": "latency"},
        {"limit": "energy"},
        {"trials": 0},
        {"budget": 1},
    ],
)
def test_what_makes_no_sense_is_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        parsed(**parameters)


def test_it_stands_before_quantization() -> None:
    search, static = {"method": "search.architecture"}, {"method": "quantize.static"}
    assert len(parse_recipe({"steps": [search, {"method": "finetune"}, static]}).steps) == 3
    with pytest.raises(RecipeError) as caught:
        parse_recipe({"steps": [static, search]})
    assert "invalid_order" in str([fault.code for fault in caught.value.faults])
