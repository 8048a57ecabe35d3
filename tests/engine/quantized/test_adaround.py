import functools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from app.recipes.methods import QuantizeStatic
from tests.support.quantizable import build, compress, samples, sqnr_db
from worker.engine.network import Network
from worker.engine.quantized.adaround import Problem, adaround, round_up
from worker.engine.quantized.fake import fake_quantized
from worker.engine.quantized.form import Quantization

FEW = 200


@functools.cache
def nearest(name: str, bits: int = 4) -> Quantization:
    return compress(build(name), QuantizeStatic(weight_bits=bits), Path()).quantized["onnxruntime"]


def adaptive(quantization: Quantization, seed: int = 0, bias_correction: bool = True) -> Quantization:
    data = samples(quantization.network, 64)
    return adaround(quantization, data, seed=seed, bias_correction=bias_correction, iterations=FEW)


def quality(quantization: Quantization) -> float:
    """SQNR of the first output on fresh samples, dB."""
    network = quantization.network
    fresh = samples(network, 64, seed=9)
    inputs = [torch.from_numpy(fresh.inputs[spec.name]) for spec in network.inputs]
    with torch.no_grad():
        return sqnr_db(network.module(*inputs)[0], fake_quantized(quantization)(*inputs)[0])


@pytest.mark.parametrize(("name", "gain"), [("residual", 3.0), ("mobile", 1.0), ("encoder", 0.5)])
def test_the_networks_output_is_nearer_than_with_rounding_to_nearest(name: str, gain: float) -> None:
    assert quality(adaptive(nearest(name))) > quality(nearest(name)) + gain


@pytest.mark.parametrize(("name", "bits"), [("mobile", 4), ("signal", 4), ("residual", 8)])
def test_weights_are_rounded_up_or_down_and_scales_stay(name: str, bits: int) -> None:
    before, after = nearest(name, bits), adaptive(nearest(name, bits))
    top = 2 ** (bits - 1) - 1
    changed = 0
    for path, weight in after.weights.items():
        layer = before.network.module.get_submodule(path)
        steps = layer.weight.detach() / weight.scale.reshape(-1, *[1] * (layer.weight.dim() - 1))
        choices = [torch.clamp(ends, -top, top).to(torch.int8) for ends in (steps.floor(), steps.floor() + 1)]
        assert ((weight.values == choices[0]) | (weight.values == choices[1])).all()
        assert weight.values.dtype == torch.int8 and weight.bits == bits
        assert torch.equal(weight.scale, before.weights[path].scale)
        changed += int((weight.values != before.weights[path].values).sum())
    assert changed
    assert after.activations == before.activations and after.absorbed == before.absorbed


def test_the_same_seed_gives_the_same_weights_and_the_input_is_left_alone() -> None:
    before = nearest("residual")
    copies = {path: weight.values.clone() for path, weight in before.weights.items()}
    first, second = adaptive(before), adaptive(before)
    for path, weight in first.weights.items():
        assert torch.equal(weight.values, second.weights[path].values)
        assert torch.equal(copies[path], before.weights[path].values)


def test_zeros_of_a_pruned_layer_stay() -> None:
    before = nearest("two_inputs")
    module = torch.fx.GraphModule(before.network.module, before.network.module.graph)
    pruned = Network(module, before.network.inputs, before.network.outputs, "pt2")
    layer = module.get_submodule("mix")
    with torch.no_grad():
        kept = layer.weight.clone()
        layer.weight[:, ::2] = 0
        try:
            after = adaptive(replace(before, network=pruned))
        finally:
            layer.weight.copy_(kept)
    assert not after.weights["mix"].values[:, ::2].any()


@pytest.mark.parametrize("bias_correction", [True, False])
def test_bias_correction_takes_the_mean_of_the_residual(bias_correction: bool) -> None:
    after = adaptive(nearest("residual"), bias_correction=bias_correction)
    network, data = after.network, samples(after.network, 64)
    inputs = torch.from_numpy(data.inputs[network.inputs[0].name])
    with torch.no_grad():
        outputs = network.module(inputs)[0]
        shift = (fake_quantized(after)(inputs)[0] - outputs).mean(0).abs().max()
    if bias_correction:
        assert shift < 2e-3 * outputs.std()
    else:
        assert torch.equal(after.weights["head"].bias, network.module.head.bias.detach())


def test_progress_reaches_the_end() -> None:
    seen: list[float] = []
    form = nearest("two_inputs")
    adaround(form, samples(form.network), bias_correction=True, progress=seen.append, iterations=2)
    assert seen == sorted(seen) and len(seen) == len(form.weights) and seen[-1] == pytest.approx(1)


def problem(relu: bool = False, groups: int = 1, seed: int = 0) -> Problem:
    """Correlated inputs for eight channels of 32 weights, whose outputs are mostly negative."""
    random = torch.Generator().manual_seed(seed)
    inputs = torch.randn(groups, 2000, 6, generator=random) @ torch.randn(groups, 6, 32, generator=random)
    inputs += 0.1 * torch.randn(groups, 2000, 32, generator=random)
    below = -torch.rand(groups, 8, 32, generator=random)
    outputs = inputs @ torch.randn(groups, 8, 32, generator=random).mT
    outputs = 4 * (outputs / outputs.std() - 1)
    bounds = (torch.zeros(1, 1, 8), torch.full((1, 1, 8), torch.inf)) if relu else None
    return Problem(inputs, torch.zeros(groups, 2000, 8), outputs, bounds, below, torch.ones_like(below))


def loss(task: Problem, up: Tensor) -> float:
    residual = torch.bmm(task.inputs, (task.below + up).mT)
    if task.bounds is not None and task.outputs is not None:
        residual = (task.outputs + residual).clamp(*task.bounds) - task.outputs.clamp(*task.bounds)
    return float(residual.square().mean())


@pytest.mark.parametrize("groups", [1, 3])
def test_errors_of_correlated_inputs_cancel(groups: int) -> None:
    task = problem(groups=groups)
    up = round_up(task, torch.Generator().manual_seed(0), 400)
    assert set(up.unique().tolist()) == {0.0, 1.0}
    assert loss(task, up) < 0.4 * loss(task, torch.round(-task.below))


def test_what_a_relu_hides_does_not_count() -> None:
    losses = []
    for seed in range(3):
        seen = problem(relu=True, seed=seed)
        tasks = (seen, problem(seed=seed))
        losses.append([loss(seen, round_up(task, torch.Generator().manual_seed(0), 300)) for task in tasks])
    aware, blind = (sum(column) for column in zip(*losses, strict=True))
    assert aware < 0.95 * blind
