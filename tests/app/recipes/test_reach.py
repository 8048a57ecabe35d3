"""What can go where: one table, read off the grids, that the API shows and requests are held to."""

from typing import Any

import pytest

from app.recipes import METHODS, TARGETS, check_targets, parse_recipe
from app.recipes.reach import possible


def faults(target: str, *steps: dict[str, Any]) -> list[tuple[str, str, str]]:
    recipe = parse_recipe({"steps": list(steps)})
    return [(fault.code, fault.pointer, fault.detail) for fault in check_targets(recipe, [target])]


def static(**parameters: Any) -> dict[str, Any]:
    return {"method": "quantize.static", **parameters}


def test_the_table_is_what_grids_and_parameters_both_admit() -> None:
    table = possible(METHODS["quantize.static"])
    assert table["torch"]["activation_bits"] == [8, 16, 4]
    assert table["onnxruntime"]["activation_bits"] == [8, 16]
    assert table["onnxruntime"]["weight_bits"] == [8, 4]
    assert table["litert"]["weight_bits"] == [8]
    assert "litert" not in possible(METHODS["quantize.float"])
    assert "tensorrt" not in possible(METHODS["quantize.dynamic"])


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name())
def test_defaults_go_wherever_the_method_goes(method: Any) -> None:
    table = possible(method)
    assert table
    assert all(values for row in table.values() for values in row.values())
    for target in TARGETS:
        told = faults(target, {"method": method.name()})
        assert bool(told) == (target not in table), told


def test_a_value_that_a_target_cannot_hold_is_told_with_what_it_can() -> None:
    (fault,) = faults("openvino", static(activation_bits=4))
    assert fault[:2] == ("target_unsupported", "/targets/0")
    assert "openvino, which holds activation_bits 8" in fault[2]
    assert "activation_bits 4 can go to torch" in fault[2]
    told = faults("litert", static(activation_bits=16, weight_bits=4))
    assert len(told) == 2


def test_a_method_that_cannot_go_at_all_says_where_it_can() -> None:
    (fault,) = faults("executorch", {"method": "quantize.float"})
    assert fault[2] == "quantize.float cannot go to executorch; it can go to onnxruntime, openvino, torch"


def test_a_zero_point_where_there_is_none() -> None:
    (fault,) = faults("tensorrt", static(symmetric_activations=False))
    assert "symmetric activations alone" in fault[2]
    assert faults("tensorrt", static(symmetric_activations=True)) == []


@pytest.mark.parametrize(
    ("second", "wrong"),
    [
        (static(), False),
        (static(equalize=True), True),
        (static(smooth=0.5), True),
        ({"method": "quantize.aware_training"}, False),
        ({"method": "quantize.aware_training", "equalize": True}, True),
    ],
)
def test_scales_move_before_anything_is_quantized(second: dict[str, Any], wrong: bool) -> None:
    steps = [static(layers={"include": ["a"]}), {**second, "layers": {"include": ["b"]}}]
    if not wrong:
        assert parse_recipe({"steps": steps}).steps
        return
    with pytest.raises(ValueError, match="first quantize step"):
        parse_recipe({"steps": steps})


def test_ternary_and_binary_weights_go_where_codebooks_of_their_width_do() -> None:
    for name in ("quantize.ternary", "quantize.binary"):
        assert set(possible(METHODS[name])) == {"onnxruntime", "torch"}
        assert possible(METHODS[name])["torch"] == {"scale": ["channel", "layer"]}
        (fault,) = faults("openvino", {"method": name})
        assert fault[2] == f"{name} cannot go to openvino; it can go to onnxruntime, torch"
