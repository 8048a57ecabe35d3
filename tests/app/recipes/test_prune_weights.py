"""Parameters of ``prune.weights``: what goes together, what data it needs, and that its page tells of all of them."""

import re
from pathlib import Path
from typing import Any

import pytest

from app.recipes import RecipeError, parse_recipe
from app.recipes.methods import PruneWeights

PAGE = Path(__file__).parents[3] / "docs/methods/prune.weights.md"


@pytest.mark.parametrize("criterion", ["magnitude", "sensitivity", "wanda", "sparsegpt"])
@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
@pytest.mark.parametrize("scope", [{}, {"scope": "global"}])
def test_every_criterion_works_with_defaults(criterion: str, pattern: str, scope: dict[str, str]) -> None:
    raw = {"method": "prune.weights", "criterion": criterion, "pattern": pattern, **scope}
    step = parse_recipe({"steps": [raw]}).steps[0]
    assert isinstance(step, PruneWeights)
    assert step.across_layers == (pattern == "unstructured" and criterion in ("magnitude", "sensitivity"))
    assert step.needed == (() if criterion == "magnitude" else ("calibration",))
    # What is stored of a job is read again.
    assert parse_recipe({"steps": [step.model_dump(mode="json")]}).steps[0] == step


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"pattern": "2:4", "sparsity": 0.6}, "leave sparsity at 0.5"),
        ({"sparsity": 0.8, "epochs": 10}, "add schedule gradual or l1 above 0, or leave epochs out"),
        ({"learning_rate": 0.1, "teacher": False}, "or leave learning_rate, teacher out"),
        ({"batch_size": 32}, "leave batch_size out"),
        ({"criterion": "sparsegpt", "schedule": "gradual"}, "let finetune follow"),
        ({"criterion": "sparsegpt", "l1": 1.0}, "let finetune follow"),
        ({"sparsity": 0}, "greater than 0"),
        ({"sparsity": 1}, "less than 1"),
    ],
)
def test_contradictions_are_refused_with_what_would_work(given: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe({"steps": [{"method": "prune.weights", **given}]})
    (fault,) = caught.value.faults
    assert fault.code == "invalid_parameter"
    assert told in fault.detail


def test_training_needs_training_data() -> None:
    assert PruneWeights(schedule="gradual").needed == ("training",)
    assert PruneWeights(l1=0.1).needed == ("training",)
    assert PruneWeights(schedule="gradual", criterion="sensitivity").needed == ("calibration", "training")
    assert PruneWeights(scope="layer", criterion="wanda").across_layers is False
    assert PruneWeights(scope="layer").across_layers is False


def test_the_page_tells_of_every_parameter_and_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| `?([^`|]+)`? \|", PAGE.read_text(), re.MULTILINE))
    defaults = {name: field.default for name, field in PruneWeights.model_fields.items() if name != "method"}
    assert defaults.keys() <= rows.keys()
    for name, value in defaults.items():
        if name != "layers":
            wanted = str(value).lower() if isinstance(value, (bool, str)) else float(value)
            told = rows[name].strip()
            assert (told if isinstance(wanted, str) else float(told)) == wanted, name
