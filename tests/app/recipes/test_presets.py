"""A preset is a recipe in a file, with a page that shows it."""

import json
import re
from pathlib import Path

import pytest

from app.recipes import PRESETS, RecipeError, check_targets, expand_preset, parse_recipe

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "app/recipes/presets").glob("*.json"))
PAGES = ROOT / "docs/presets"


def test_presets_are_the_files_and_have_pages() -> None:
    names = {file.stem for file in FILES}
    assert set(PRESETS) == names == {page.stem for page in PAGES.glob("*.md")}
    assert names >= {"fast", "balanced", "no_data", "accurate", "small", "tiny", "edge"}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_recipe_with_a_page_that_shows_it(name: str) -> None:
    preset = PRESETS[name]
    assert preset.name == name
    assert preset.summary.strip()
    assert preset.recipe == json.loads((ROOT / f"app/recipes/presets/{name}.json").read_text())["recipe"]
    recipe = parse_recipe(expand_preset(f"preset:{name}"))
    page = (PAGES / f"{name}.md").read_text()
    assert page.startswith(f"# preset:{name}\n")
    (shown,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    assert json.dumps(json.loads(shown)) == json.dumps(preset.recipe), "the page shows another recipe"
    for step in recipe.steps:
        assert f"(../methods/{step.method}.md)" in page
    for part in ("**Data**", "**Use it when**", "**Expect**"):
        assert part in page


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_what_data_it_needs_and_goes_to_the_usual_targets(name: str) -> None:
    recipe = parse_recipe(PRESETS[name].recipe)
    needed = {role for step in recipe.steps for role in step.needed}
    for role in needed or {"no"}:
        assert f"{role} data" in PRESETS[name].summary
    assert check_targets(recipe, ["onnxruntime", "openvino", "torch", "executorch", "litert"]) == []


def test_an_unknown_preset_lists_those_there_are() -> None:
    with pytest.raises(RecipeError, match=r"accurate, balanced") as caught:
        expand_preset("preset:best")
    assert [fault.code for fault in caught.value.faults] == ["unknown_preset"]
