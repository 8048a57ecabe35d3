"""Learned steps: the gradients of LSQ, and weights in front of a batch norm."""

import pytest
import torch
from torch import nn

from worker.engine.quantized.affine import Affine
from worker.engine.quantized.learned import LearnedGrid, LearnedLayer, WeightForm, fake_quantize
from worker.engine.quantized.student import shifted


def test_gradients_are_those_of_the_paper() -> None:
    x = torch.tensor([-9.0, -0.3, 0.6, 1.4, 99.0], requires_grad=True)
    step = torch.tensor(0.5, requires_grad=True)
    value = fake_quantize(x, step, -4, 7, 5)
    torch.testing.assert_close(value, torch.tensor([-2.0, -0.5, 0.5, 1.5, 3.5]))
    value.sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0]))
    inside = sum(round(v / 0.5) - v / 0.5 for v in (-0.3, 0.6, 1.4))
    assert float(step.grad) == pytest.approx((-4 + inside + 7) / (5 * 7) ** 0.5, rel=1e-5)


def test_a_grid_computes_as_its_affine_form_does() -> None:
    grid = Affine(0.1, 37, 0, 255)
    learned = LearnedGrid(grid, learned=True)
    x = torch.randn(4, 50) * 20
    torch.testing.assert_close(learned(x).detach(), grid.dequantize(grid.quantize(x)))
    assert learned.grid().zero_point == 37
    assert [name for name, _ in LearnedGrid(grid, learned=False).named_parameters()] == []


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_the_folded_weight_is_what_is_quantized(granularity: str) -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)
    norm.running_var = torch.tensor([0.1, 1.0, 3.0, 0.5, 2.0])
    norm.running_mean = torch.randn(5)
    norm.weight.data = torch.tensor([1.0, -0.7, 0.0, 1e-20, 2.0])
    learned = LearnedLayer(conv, [norm], WeightForm(4, granularity, False, True)).eval()  # type: ignore[arg-type]
    factor = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).detach()
    weight = conv.weight.detach() * factor.reshape(-1, 1, 1, 1)
    bias = ((conv.bias - norm.running_mean) * factor + norm.bias).detach()
    stored = learned.stored(weight, bias, 0.0)
    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(
        nn.functional.conv2d(x, stored.dequantized(), bias), learned(x).detach(), atol=1e-5, rtol=1e-4
    )
    learned.train()
    learned(x).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in learned.parameters())


def test_shifted_grids_stand_for_the_same_numbers() -> None:
    grid = Affine(0.25, 128, 0, 255)
    signed = shifted(grid, signed=True)
    assert (signed.zero_point, signed.low, signed.high) == (0, -128, 127)
    assert signed.range == grid.range
    assert shifted(signed, signed=False) == grid
    assert shifted(grid, signed=False) is grid
