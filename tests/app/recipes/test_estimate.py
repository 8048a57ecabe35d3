"""Estimates by themselves: every method has one, and they go the way that parameters point."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.recipes import METHODS, TARGETS, ModelFacts, parse_recipe
from app.recipes.estimate import Estimate, Machine, Question, Samples, estimate
from app.recipes.estimate.files import group_count
from app.recipes.facts import LayerFacts
from app.recipes.reach import possible

SAMPLES = Samples(256, 256, 256)
MORE: dict[str, dict[str, Any]] = {"distill": {"student": {"width": 0.5}}}


def facts(width: int = 32, depth: int = 3, *, shapes: bool = True) -> ModelFacts:
    """A chain of convolutions with batch norms, and a linear layer."""
    layers, last = [], 3
    for index in range(depth):
        conv = {"weight": (width, last, 3, 3)}
        macs = 64 * width * last * 9
        layers.append(_layer(f"conv{index}", "Conv2d", conv, macs, shapes))
        layers.append(_layer(f"bn{index}", "BatchNorm2d", {"weight": (width,), "bias": (width,)}, 0, shapes))
        last = width
    layers.append(_layer("fc", "Linear", {"weight": (10, last), "bias": (10,)}, 10 * last, shapes))
    values = 4 * 64 * width * depth * 3
    return ModelFacts.model_validate(
        {
            "format": "pt2",
            "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 3, 8, 8]}],
            "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 10]}],
            "parameters": sum(layer.parameters for layer in layers),
            "layers": layers,
            "operators": {"Conv2d": depth, "BatchNorm2d": depth, "relu": depth, "Linear": 1},
            **({"value_bytes": values, "live_bytes": values // depth} if shapes else {}),
        }
    )


def _layer(name: str, kind: str, shapes: dict[str, tuple[int, ...]], macs: int, told: bool) -> LayerFacts:
    count = sum(map(math.prod, shapes.values()))
    return LayerFacts(name=name, kind=kind, parameters=count, macs=macs, shapes=shapes if told else {})


def of(*steps: dict[str, Any], target: str = "onnxruntime", model: ModelFacts | None = None, **more: Any) -> Estimate:
    question = {"samples": SAMPLES, **more}
    return estimate(Question(parse_recipe({"steps": list(steps)}), [target], model or facts(), **question))


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_has_an_estimate_on_each_of_its_targets(method: str) -> None:
    for target in possible(METHODS[method]):
        found = of({"method": method, **MORE.get(method, {})}, target=target)
        assert 0 < found.size_bytes < 10 * facts().parameters * 4 + 500_000
        assert 0 < found.peak_memory_bytes < 8 << 30
        assert 0 < found.run_s < 3600
        assert found.notes


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_target_has_one_of_its_own(target: str) -> None:
    assert of({"method": "finetune"}, target=target).sizes[target] > 4 * (facts().parameters - 2 * 96)


def test_what_an_old_check_has_not_told_is_guessed_and_said() -> None:
    old = of({"method": "quantize.static"}, model=facts(shapes=False))
    new = of({"method": "quantize.static"})
    assert old.size_bytes == pytest.approx(new.size_bytes, rel=0.3)
    assert any("older version" in note for note in old.notes)


@given(st.integers(1, 64), st.integers(1, 6))
def test_larger_models_take_more(width: int, depth: int) -> None:
    step = {"method": "quantize.static"}
    small = of(step, model=facts(width, depth))
    for larger in (facts(width + 8, depth), facts(width, depth + 1)):
        found = of(step, model=larger)
        assert found.size_bytes > small.size_bytes
        assert found.peak_memory_bytes >= small.peak_memory_bytes
        assert found.run_s >= small.run_s


@given(st.floats(0.05, 0.9), st.floats(0.01, 0.09))
def test_the_more_channels_go_the_smaller_it_gets(ratio: float, more: float) -> None:
    for parameter in ("ratio", "max_macs_ratio"):
        low, high = (
            of({"method": "prune.channels", "scope": "layer", parameter: value}, model=facts(64)).size_bytes
            for value in (ratio, ratio + more)
        )
        assert (low >= high) if parameter == "ratio" else (low <= high)


@given(st.floats(0.05, 0.8), st.floats(0.01, 0.15))
def test_higher_ranks_are_larger(ratio: float, more: float) -> None:
    for method in ("factorize.tucker", "factorize.cp"):
        low, high = (
            of({"method": method, "rank_ratio": value, "round_to": 1}, model=facts(64)).size_bytes
            for value in (ratio, ratio + more)
        )
        assert low <= high * 1.02  # a further layer is a further piece of graph


@given(st.integers(1, 500), st.integers(1, 30), st.integers(1, 2000), st.integers(0, 1000))
def test_training_costs_more_with_samples_epochs_and_batches(batch: int, epochs: int, samples: int, more: int) -> None:
    def trained(batch: int, epochs: int, samples: int) -> Estimate:
        step = {"method": "finetune", "batch_size": batch, "epochs": epochs}
        return of(step, samples=Samples(training=samples))

    least = trained(batch, epochs, samples)
    assert trained(batch + more, epochs, samples).peak_memory_bytes >= least.peak_memory_bytes
    assert trained(batch, epochs + 1, samples).run_s > least.run_s
    assert trained(batch, epochs, samples + more).run_s >= least.run_s


@pytest.mark.parametrize("target", ["onnxruntime", "torch"])
def test_fewer_bits_are_smaller(target: str) -> None:
    big = facts(256)
    sizes = [
        of({"method": "quantize.weights", "bits": bits}, target=target, model=big).size_bytes for bits in (8, 4, 3, 2)
    ]
    assert sizes == sorted(sizes, reverse=True)
    ratio = of({"method": "quantize.mixed", "max_size_ratio": 0.2}, target=target, model=big).size_bytes
    assert ratio == pytest.approx(0.2 * 4 * big.parameters, rel=0.2)


def test_zeros_are_stored_and_steps_compose() -> None:
    float_size = of({"method": "finetune"}).size_bytes
    assert of({"method": "prune.weights", "sparsity": 0.9}).size_bytes == float_size
    narrow = {"method": "prune.channels", "scope": "layer", "ratio": 0.5}
    both = of(narrow, {"method": "quantize.static"}).size_bytes
    assert both < min(of(narrow).size_bytes, of({"method": "quantize.static"}).size_bytes)


def test_filters_leave_layers_in_float() -> None:
    some = of({"method": "quantize.static", "layers": {"exclude": ["conv1"]}}).size_bytes
    assert of({"method": "quantize.static"}).size_bytes < some < of({"method": "finetune"}).size_bytes


def test_a_student_of_its_own_takes_the_models_place() -> None:
    step = {"method": "distill", "student": {"model_id": "mdl_2"}}
    known = of(step, others={"mdl_2": facts(8)}).size_bytes
    assert known == of({"method": "finetune"}, model=facts(8)).size_bytes
    assert any("not known" in note for note in of(step).notes)


def test_more_threads_and_a_gpu_are_faster() -> None:
    step, model = {"method": "finetune", "epochs": 50}, facts(256)
    one, four, gpu = (
        of(step, model=model, machine=machine).run_s for machine in (Machine(), Machine(4), Machine(4, gpu=True))
    )
    assert one > four > gpu


def test_what_dominates_is_told() -> None:
    trained = of({"method": "finetune", "batch_size": 4096}, samples=Samples(training=100_000), model=facts(128))
    assert trained.largest == 0
    assert any("memory: most of it is for step 1, finetune" in note for note in trained.notes)
    assert any(note.startswith("time: 9") for note in trained.notes)
    assert of({"method": "quantize.dynamic"}).largest is None


@pytest.mark.parametrize(
    ("each", "size", "groups"), [(288, 128, 3), (64, 128, 1), (127, 64, 1), (300, -1, 1), (96, 32, 3)]
)
def test_groups_are_those_of_the_engine(each: int, size: int, groups: int) -> None:
    assert group_count(each, size) == groups


def test_facts_that_make_no_sense_do_no_harm() -> None:
    model = facts()
    odd = LayerFacts(name="odd", kind="Conv2d", parameters=0, shapes={"weight": (0, 3), "bias": (0,)}, groups=0)
    empty = model.model_copy(update={"layers": (odd,), "parameters": 0, "operators": {}})
    for method in ("quantize.weights", "prune.channels", "factorize.svd", "quantize.ternary", "quantize.mixed"):
        assert of({"method": method}, model=empty).size_bytes >= 0
