"""Weights: scales of least error, and biases that fit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.engine.quantized.affine import affine
from worker.engine.quantized.fake import integer_bias
from worker.engine.quantized.weights import best_scale, quantize_weight, sqnr_db

SHAPES = st.sampled_from([(4, 3, 3, 3), (6, 1, 3, 3), (5, 40), (3, 400), (2, 64, 3, 3), (3, 16, 5)])


def error(rows: torch.Tensor, scale: torch.Tensor, top: int) -> torch.Tensor:
    scale = scale[:, None]
    return (torch.clamp(torch.round(rows / scale), -top, top) * scale - rows).square().sum(1)


@settings(deadline=None, max_examples=50)
@given(SHAPES, st.integers(0, 10_000), st.sampled_from([3, 4, 8]), st.booleans())
def test_no_worse_than_dividing_by_the_largest(shape: tuple[int, ...], seed: int, bits: int, heavy: bool) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    rows = (weight**3 if heavy else weight).reshape(shape[0], -1)
    top = 2 ** (bits - 1) - 1
    plain = error(rows, rows.abs().amax(1) / top, top).sum()
    assert float(error(rows, best_scale(rows, top), top).sum()) <= float(plain) * 1.05


@pytest.mark.parametrize("bits", [4, 8])
def test_close_to_a_full_search(bits: int) -> None:
    generator = torch.Generator().manual_seed(bits)
    normal = torch.randn(6, 2304, generator=generator)
    rows = normal / torch.randn(4, 6, 2304, generator=generator).square().mean(0).sqrt()  # Student's t, 4 degrees
    top = 2 ** (bits - 1) - 1
    searched = torch.stack(
        [error(rows, rows.abs().amax(1) * share / top, top) for share in torch.linspace(0.02, 1, 400)]
    )
    assert bool((error(rows, best_scale(rows, top), top) <= searched.amin(0) * 1.03).all())


@settings(deadline=None, max_examples=50)
@given(SHAPES, st.integers(0, 10_000), st.sampled_from(["channel", "tensor"]))
def test_stored_form(shape: tuple[int, ...], seed: int, granularity: str) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    made = quantize_weight(weight, torch.zeros(shape[0]), granularity=granularity)
    assert made.values.dtype == torch.int8
    assert made.values.shape == weight.shape
    assert made.scale.shape == ((shape[0],) if granularity == "channel" else (1,))
    assert int(made.values.abs().max()) <= 127
    assert sqnr_db(weight, made.dequantized() - weight) > (35 if granularity == "channel" else 30)


def test_zero_channels_and_huge_biases() -> None:
    weight = torch.stack([torch.zeros(20), torch.full((20,), 1e-30), torch.randn(20)])
    bias = torch.tensor([5.0, -1e6, 0.1])
    grid = affine(0.0, 1e-3)
    made = quantize_weight(weight, bias, input_scale=grid.scale)
    assert bool(torch.isfinite(made.scale).all())
    restored = integer_bias(made, grid).double() * made.scale.double() * grid.scale
    torch.testing.assert_close(restored.float(), bias, rtol=1e-6, atol=1e-9)


def test_sqnr_of_nothing() -> None:
    assert sqnr_db(torch.ones(3), torch.zeros(3)) == 200.0
    assert sqnr_db(torch.zeros(3), torch.ones(3)) == 0.0
    assert sqnr_db(torch.full((4,), 10.0), torch.ones(4)) == pytest.approx(20.0)
