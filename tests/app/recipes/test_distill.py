"""Parameters of distillation, and what may stand in for a job's model."""

from typing import Any

import pytest

from app.recipes import Recipe, RecipeError, parse_recipe
from app.recipes.facts import ModelFacts
from app.recipes.fit import differences, model_faults
from app.recipes.methods import QuantizeStatic
from app.recipes.methods.distill import Distill


def parsed(**parameters: Any) -> Distill:
    recipe = parse_recipe({"steps": [{"method": "distill", **parameters}]})
    assert parse_recipe(recipe.model_dump(mode="json")) == recipe
    (step,) = recipe.steps
    assert isinstance(step, Distill)
    return step


def test_alone_it_teaches_the_current_network_scores_and_labels() -> None:
    step = parsed()
    assert step.student is None
    assert step.losses.soft_labels is not None
    assert (step.losses.soft_labels.temperature, step.losses.soft_labels.weight) == (4, 1)
    assert step.losses.features is None
    assert step.losses.task is not None
    assert step.needed == ("training",)
    assert (step.models, dict(step.models_at)) == ((), {})


def test_a_student_is_an_uploaded_model_or_a_share_of_the_teacher() -> None:
    assert parsed(student={"model_id": "mdl_1"}).models == ("mdl_1",)
    assert dict(parsed(student={"model_id": "mdl_1"}).models_at) == {"student/model_id": "mdl_1"}
    assert parsed(student={"width": 0.5}).models == ()
    recipe = Recipe(steps=(parsed(student={"model_id": "b"}), QuantizeStatic(), parsed(student={"model_id": "a"})))
    assert recipe.models == ("b", "a")


@pytest.mark.parametrize("student", [{"model_id": "mdl_1"}, {"width": 0.5}, {"depth": 0.5}])
def test_a_student_of_its_own_comes_first(student: dict[str, Any]) -> None:
    step, before = {"method": "distill", "student": student}, {"method": "prune.weights"}
    assert parse_recipe({"steps": [step, before, {"method": "distill"}]})
    with pytest.raises(RecipeError, match="put it first") as caught:
        parse_recipe({"steps": [before, step]})
    assert [(fault.code, fault.pointer) for fault in caught.value.faults] == [("invalid_order", "/recipe/steps/1")]


@pytest.mark.parametrize(
    ("parameters", "pointer"),
    [
        ({"student": {"model_id": "mdl_1", "width": 0.5}}, "student"),
        ({"student": {}}, "student"),
        ({"student": {"width": 0}}, "student/width"),
        ({"student": {"model_id": "x" * 101}}, "student/model_id"),
        ({"losses": {"soft_labels": {"temperature": 0}}}, "losses/soft_labels/temperature"),
        ({"losses": {"soft_labels": None, "task": None}}, "losses"),
        ({"losses": {"features": {"weight": 0}}}, "losses/features/weight"),
        ({"epochs": 0}, "epochs"),
    ],
)
def test_parameters_that_make_no_sense(parameters: dict[str, Any], pointer: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parsed(**parameters)
    assert [(fault.code, fault.pointer) for fault in caught.value.faults] == [
        ("invalid_parameter", f"/recipe/steps/0/{pointer}")
    ]


def facts(inputs: dict[str, Any], outputs: dict[str, Any]) -> ModelFacts:
    sides = [
        [{"name": name, "dtype": dtype, "shape": shape} for name, (dtype, shape) in side.items()]
        for side in (inputs, outputs)
    ]
    return ModelFacts.model_validate({"format": "onnx", "inputs": sides[0], "outputs": sides[1], "parameters": 1})


IMAGE, MASK = ("float32", ["batch", 3, 8, 8]), ("int64", ["batch", "length"])
SCORES = ("float32", ["batch", 10])
TEACHER = facts({"image": IMAGE, "mask": MASK}, {"scores": SCORES})


@pytest.mark.parametrize(
    ("student", "told"),
    [
        (facts({"image": IMAGE, "mask": MASK}, {"logits": SCORES}), []),
        (facts({"mask": ("int64", [1, 16]), "image": IMAGE}, {"logits": ("float32", [1, 10])}), []),
        (facts({"image": IMAGE}, {"s": SCORES}), ["its inputs are 'image', those of the job's model 'image', 'mask'"]),
        (facts({"image": IMAGE, "mask": ("int32", ["n", "m"])}, {"s": SCORES}), ["its input 'mask' is int32"]),
        (facts({"image": ("float32", ["n", 3, 8, 9]), "mask": MASK}, {"s": SCORES}), ["its input 'image' is float32"]),
        (facts({"image": IMAGE, "mask": MASK}, {}), ["it has 0 outputs, the job's model 1"]),
        (facts({"image": IMAGE, "mask": MASK}, {"s": ("float32", ["n", 9])}), ["its output 0 is float32 ['n', 9]"]),
        (facts({"image": IMAGE, "mask": MASK}, {"s": ("float32", ["n", 10, 1])}), ["its output 0 is"]),
    ],
)
def test_what_can_stand_in_for_the_jobs_model(student: ModelFacts, told: list[str]) -> None:
    found = list(differences(TEACHER, student))
    assert len(found) == len(told)
    assert all(sentence.startswith(start) for sentence, start in zip(found, told, strict=True))
    recipe = parse_recipe({"steps": [{"method": "distill", "student": {"model_id": "mdl_1"}}]})
    faults = model_faults(recipe, TEACHER, {"mdl_1": student})
    assert [(fault.code, fault.pointer) for fault in faults] == [
        ("model_mismatch", "/recipe/steps/0/student/model_id") for _ in told
    ]
    assert model_faults(recipe, TEACHER, {}) == []
