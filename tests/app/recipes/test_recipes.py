"""Recipes: parsing never fails but with a RecipeError, facts tell what fits."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.recipes import METHODS, TARGETS, RecipeError, check_targets, expand_preset, parse_recipe
from app.recipes.facts import DatasetFacts, LayerFacts, ModelFacts, TensorFacts
from app.recipes.fit import data_faults, labelled, layer_faults, teaches

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
parameters = sorted({name for step in METHODS.values() for name in step.model_fields})
steps = st.fixed_dictionaries(
    {"method": st.sampled_from(sorted(METHODS)) | st.text(max_size=10)},
    optional={name: json_values for name in parameters if name != "method"},
)
recipes = json_values | st.fixed_dictionaries({"steps": st.lists(steps | json_values, max_size=4)})


@settings(deadline=None)
@given(recipes)
def test_parsing_gives_a_recipe_or_names_its_faults(raw: Any) -> None:
    try:
        recipe = parse_recipe(expand_preset(raw))
    except RecipeError as error:
        assert error.faults
        assert all(fault.code and fault.detail and fault.pointer.startswith("/recipe") for fault in error.faults)
    else:
        again = parse_recipe(recipe.model_dump(mode="json"))
        assert again == recipe


@settings(deadline=None)
@given(recipes, st.lists(st.sampled_from(sorted(TARGETS)) | st.text(max_size=10), max_size=3))
def test_targets_are_checked_without_an_exception(raw: Any, targets: list[str]) -> None:
    try:
        recipe = parse_recipe(raw)
    except RecipeError:
        return
    known = all(target in TARGETS for target in targets)
    assert known or check_targets(recipe, targets)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_alone_is_a_recipe(method: str) -> None:
    recipe = parse_recipe({"steps": [{"method": method}]})
    assert recipe.steps[0] == METHODS[method](method=method)


def test_a_field_name_is_escaped_in_its_pointer() -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe({"steps": [{"method": "quantize.static"}], "a/b~c": 1})
    assert [fault.pointer for fault in caught.value.faults] == ["/recipe/a~1b~0c"]


def test_too_many_steps() -> None:
    with pytest.raises(RecipeError, match="at most 32 steps"):
        parse_recipe({"steps": [{"method": "quantize.dynamic"}] * 33})


def test_a_fault_repeats_little_of_what_was_sent() -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe({"steps": [{"method": "x" * 10**6}, {"method": "quantize.static", "samples": "y" * 10**6}]})
    assert max(len(fault.detail) for fault in caught.value.faults) < 500


MODEL = ModelFacts(
    format="onnx",
    inputs=(
        TensorFacts(name="a", dtype="float32", shape=("batch", "length")),
        TensorFacts(name="b", dtype="int64", shape=("batch", "length")),
    ),
    outputs=(),
    parameters=1,
    layers=(LayerFacts(name="fc", kind="Linear", parameters=1),),
)


def columns(**shapes: tuple[str, tuple[int, ...]]) -> DatasetFacts:
    specs = tuple(TensorFacts(name=name, dtype=dtype, shape=shape) for name, (dtype, shape) in shapes.items())
    return DatasetFacts(columns=specs, samples=8)


def test_a_symbolic_dimension_has_one_size() -> None:
    same = columns(a=("float32", (5,)), b=("int64", (5,)), label=("int64", ()))
    assert data_faults(MODEL, same, "/x") == []
    differing = columns(a=("float32", (5,)), b=("int64", (6,)))
    assert [fault.code for fault in data_faults(MODEL, differing, "/x")] == ["dataset_shape_mismatch"]


def test_columns_of_further_labels_are_named() -> None:
    specs = tuple(TensorFacts(name=name, dtype="float32", shape=("batch", 3)) for name in ("first", "second"))
    data = columns(a=("float32", (5,)), b=("int64", (5,)), label_first=("int64", ()))
    (fault,) = data_faults(MODEL.model_copy(update={"outputs": specs}), data, "/x")
    assert fault.code == "dataset_columns_mismatch"
    assert "optionally 'label', 'label_second'" in fault.detail


def test_input_serves_one_input_models_alone() -> None:
    faults = data_faults(MODEL, columns(input=("float32", (5,))), "/x")
    assert [(fault.code, fault.pointer) for fault in faults] == [("dataset_columns_mismatch", "/x")]


@pytest.mark.parametrize(
    ("outputs", "task", "kind", "low", "high", "code"),
    [
        ((("batch", 10),), None, "class", 0, 9, None),
        ((("batch", 10),), None, "class", 0, 10, "labels_out_of_range"),
        ((("batch", 10),), "classification", "class", -1, 3, "labels_out_of_range"),
        ((("batch", 10),), "regression", "class", 0, 10, None),
        ((("batch", 10),), None, "float", 0.0, 10.0, None),
        ((("batch", 1),), None, "class", 0, 10, None),
        ((("batch", "classes"),), None, "class", 0, 10, None),
        ((("batch", 10, 8),), None, "class", 0, 10, None),
        ((), None, "class", 0, 10, None),
    ],
)
def test_labels_must_be_classes_of_the_model(
    outputs: tuple[Any, ...], task: str | None, kind: str, low: float, high: float, code: str | None
) -> None:
    specs = tuple(TensorFacts(name="scores", dtype="float32", shape=shape) for shape in outputs)
    data = columns(a=("float32", (5,)), b=("int64", (5,)), label=("int64", ()))
    data = data.model_copy(update={"label": {"kind": kind, "min": low, "max": high}})
    faults = data_faults(MODEL.model_copy(update={"outputs": specs}), data, "/x", task=task)
    assert [fault.code for fault in faults] == ([code] if code else [])


def test_layers_are_not_checked_where_they_are_unknown() -> None:
    recipe = parse_recipe({"steps": [{"method": "quantize.dynamic", "layers": {"include": ["conv"]}}]})
    assert [fault.code for fault in layer_faults(recipe, MODEL, {})] == ["unknown_layer"]
    assert layer_faults(recipe, MODEL.model_copy(update={"layers": ()}), {}) == []


@pytest.mark.parametrize(
    ("glob", "known", "expected"), [("student_*", True, []), ("fc", True, ["unknown_layer"]), ("fc", False, [])]
)
def test_layers_of_a_student_are_those_of_the_model_it_is(glob: str, known: bool, expected: list[str]) -> None:
    step = {"method": "distill", "student": {"model_id": "mdl_2"}, "layers": {"include": [glob]}}
    student = MODEL.model_copy(update={"layers": (LayerFacts(name="student_fc", kind="Linear", parameters=1),)})
    faults = layer_faults(parse_recipe({"steps": [step]}), MODEL, {"mdl_2": student} if known else {})
    assert [fault.code for fault in faults] == expected
    assert all("the model has student_fc" in fault.detail for fault in faults)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ({"method": "finetune"}, True),
        ({"method": "distill"}, False),
        ({"method": "distill", "losses": {"soft_labels": None}}, True),
        ({"method": "distill", "losses": {"soft_labels": None, "features": {}}}, False),
        ({"method": "prune.channels", "epochs": 1}, False),
        ({"method": "prune.channels", "epochs": 1, "teacher": False}, True),
        ({"method": "prune.weights", "l1": 1, "teacher": False}, True),
        ({"method": "quantize.aware_training", "teacher": False}, True),
        ({"method": "quantize.codebook", "finetune": True, "teacher": False}, True),
        ({"method": "search.architecture"}, False),
        ({"method": "search.architecture", "teacher": False}, True),
        ({"method": "quantize.static"}, False),
    ],
)
def test_what_learns_from_labels_alone_needs_them(step: dict[str, Any], expected: bool) -> None:
    assert parse_recipe({"steps": [step]}).steps[0].needs_labels is expected


def test_labels_of_any_output_teach() -> None:
    specs = tuple(TensorFacts(name=name, dtype="float32", shape=("batch", 3)) for name in ("first", "second"))
    model = MODEL.model_copy(update={"outputs": specs})
    inputs: dict[str, Any] = {"a": ("float32", (5,)), "b": ("int64", (5,))}
    assert teaches(model, columns(**inputs).model_copy(update={"label": {"kind": "class"}}))
    assert teaches(model, columns(**inputs, label_second=("int64", ())))
    assert not teaches(model, columns(**inputs, label_first=("int64", ())))


def test_labelled() -> None:
    without = columns(a=("float32", (5,)))
    having = without.model_copy(update={"label": {"kind": "class"}})
    assert labelled([]) is False
    assert labelled([without]) is False
    assert labelled([without, having]) is True
    assert labelled([without, None]) is None
