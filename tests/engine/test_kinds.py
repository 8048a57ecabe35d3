"""Ten kinds of networks, trained on real data, through recipes of every family to a file that was measured."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from app.recipes import parse_recipe
from tests.support.quantizable import Notebook
from tests.support.small_kinds import KINDS, Made, made
from worker.engine.errors import Unsupported
from worker.engine.pipeline import JobInput, JobResult, run

TRAINED = {"epochs": 4, "learning_rate": 3e-3, "batch_size": 32}
CHANNELS = {"method": "prune.channels", "ratio": 0.4, "round_to": 1}
RECIPES: dict[str, list[dict[str, Any]]] = {
    "channels": [CHANNELS, {"method": "distill", **TRAINED}, {"method": "quantize.static"}],
    "weights": [{"method": "prune.weights", "sparsity": 0.6}, {"method": "finetune", **TRAINED}],
    "svd": [{"method": "factorize.svd", "rank_ratio": 0.6, "round_to": 1}, {"method": "finetune", **TRAINED}],
    "tucker": [{"method": "factorize.tucker", "rank_ratio": 0.6, "round_to": 1}, {"method": "finetune", **TRAINED}],
    "smaller copy": [{"method": "distill", "student": {"width": 0.6}, **TRAINED}],
    "search": [{"method": "search.architecture", "limit_ratio": 0.6, "trials": 12, **TRAINED, "round_to": 1}],
}
#: Points of accuracy that may be lost.
LOSS = {"search": 0.12, "smaller copy": 0.12}
#: In networks of a few kilobytes what more layers take in a file outweighs the weights that they save.
MORE_LAYERS = ("svd", "tucker")
#: What a recipe cannot do to a kind, by the code that it answers with.
CANNOT = {("tucker", kind): "no_layers" for kind in ("transformer", "lstm", "tabular")}


def cases() -> Iterator[object]:
    """Every kind through every recipe; CI has the time for two recipes of each kind, and each recipe for some kinds."""
    for row, name in enumerate(KINDS):
        for column, recipe in enumerate(RECIPES):
            marks = [] if (row - column) % 3 == 0 else [pytest.mark.long]
            yield pytest.param(name, recipe, marks=marks, id=f"{name}-{recipe}")


@pytest.fixture(scope="module")
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Made]:
    return request.param, made(request.param, tmp_path_factory.mktemp(request.param))


def job(files: Made, steps: list[dict[str, Any]], output: Path) -> JobResult:
    recipe = parse_recipe({"steps": steps})
    return run(JobInput(files.model, recipe, ("onnxruntime",), output, data=files.data), Notebook())


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "recipe"), list(cases()), indirect=["kind"])
def test_it_is_smaller_and_still_knows(recipe: str, kind: tuple[str, Made], tmp_path: Path) -> None:
    name, files = kind
    if (recipe, name) in CANNOT:
        with pytest.raises(Unsupported) as caught:
            job(files, RECIPES[recipe], tmp_path)
        assert caught.value.code == CANNOT[recipe, name]
        return
    result = job(files, RECIPES[recipe], tmp_path)
    before, after = (result.metrics[side]["onnxruntime"] for side in ("baseline", "artifacts"))
    assert before["metric"]["value"] > 0.9
    assert after["metric"]["value"] > before["metric"]["value"] - LOSS.get(recipe, 0.06)
    if recipe == "weights":
        assert after["nonzero_parameters"] < 0.55 * before["nonzero_parameters"]
    else:
        assert after["parameters"] < before["parameters"]
        assert after["macs"] < before["macs"]
        assert recipe in MORE_LAYERS or after["size_bytes"] < before["size_bytes"]
    assert len(result.metrics["steps"]) == len(RECIPES[recipe])
    session = onnxruntime.InferenceSession(result.artifacts[0].path)
    with np.load(files.data["evaluation"]) as data:
        outputs = session.run(None, {session.get_inputs()[0].name: data["input"][:5]})
        assert all(len(output) == 5 for output in outputs)
        assert len(outputs) == 1 + len(KINDS[name].more)


def test_what_cannot_be_pruned_is_left_alone_and_named(tmp_path: Path) -> None:
    files = made("lstm", tmp_path)
    result = job(files, [CHANNELS], tmp_path / "job")
    assert any("lstm" in note and "no channels are removed" in note for note in result.metrics["notes"])
