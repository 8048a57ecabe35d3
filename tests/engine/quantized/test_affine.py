"""Quantizer arithmetic: what every grid promises."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.engine.quantized.affine import affine, integer_range
from worker.engine.quantized.fake import on_dynamic_grid, on_grid
from worker.engine.quantized.lowered import on_plain_grid

ENDS = st.floats(-1e6, 1e6, width=32)
BITS = st.sampled_from([2, 4, 8, 16])
FLAGS = st.booleans()
VALUES = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40)


@settings(deadline=None, max_examples=50)
@given(ENDS, ENDS, BITS, FLAGS, FLAGS)
def test_zero_is_exact(one: float, other: float, bits: int, signed: bool, symmetric: bool) -> None:
    grid = affine(min(one, other), max(one, other), bits=bits, signed=signed, symmetric=symmetric)
    assert (grid.low, grid.high) == integer_range(bits, signed)
    assert grid.low <= grid.zero_point <= grid.high
    assert float(grid.dequantize(grid.quantize(torch.zeros(1)))) == 0.0


@settings(deadline=None, max_examples=50)
@given(ENDS, ENDS, FLAGS, FLAGS, VALUES)
def test_round_trip_moves_by_half_a_step(
    one: float, other: float, signed: bool, symmetric: bool, values: list[float]
) -> None:
    grid = affine(min(one, other), max(one, other), signed=signed, symmetric=symmetric)
    low, high = grid.range
    x = torch.tensor(values, dtype=torch.float64).clamp(low, high)
    moved = (grid.dequantize(grid.quantize(x)) - x).abs()
    assert float(moved.max()) <= grid.scale * 0.5 * (1 + 1e-6)


@settings(deadline=None, max_examples=50)
@given(ENDS, ENDS, FLAGS, FLAGS)
def test_range_covers_what_was_asked(one: float, other: float, signed: bool, symmetric: bool) -> None:
    low, high = min(one, other, 0.0), max(one, other, 0.0)
    grid = affine(low, high, signed=signed, symmetric=symmetric)
    slack = grid.scale * 0.5 * (1 + 1e-6)  # the zero point is rounded
    assert grid.range[0] <= low + slack
    assert grid.range[1] >= high - slack


@settings(deadline=None, max_examples=50)
@given(ENDS, ENDS, VALUES)
def test_monotone_and_idempotent(one: float, other: float, values: list[float]) -> None:
    grid = affine(min(one, other), max(one, other))
    x = torch.tensor(sorted(values), dtype=torch.float64)
    q = grid.quantize(x)
    assert bool((q.diff() >= 0).all())
    assert torch.equal(grid.quantize(grid.dequantize(q)), q)


@settings(deadline=None, max_examples=50)
@given(ENDS)
def test_symmetric_zero_point_is_fixed(end: float) -> None:
    assert affine(-1.0, end, signed=True, symmetric=True).zero_point == 0
    assert affine(-1.0, end, signed=False, symmetric=True).zero_point == 128
    positive = affine(0.0, 1.0, signed=False, symmetric=True)
    assert (positive.zero_point, positive.high) == (0, 255)


@settings(deadline=None, max_examples=50)
@given(VALUES)
def test_plain_and_native_arithmetic_agree(values: list[float]) -> None:
    x = torch.tensor(values)
    grid = affine(float(x.min()), float(x.max()))
    one = on_grid(x, grid.scale, grid.zero_point, grid.low, grid.high)
    other = on_plain_grid(x, grid.scale, grid.zero_point, grid.low, grid.high)
    # They may round a value that lies half way differently: the one multiplies by 1 / scale, the other divides.
    assert float((one - other).abs().max()) <= grid.scale * (1 + 1e-5)


@settings(deadline=None, max_examples=50)
@given(VALUES)
def test_dynamic_grid_covers_the_tensor(values: list[float]) -> None:
    x = torch.tensor(values)
    span = float(x.amax().clamp(min=0) - x.amin().clamp(max=0))
    moved = float((on_dynamic_grid(x) - x).abs().max())
    assert moved <= span / 255 * (1 + 1e-4) + 1e-30
    assert float(on_dynamic_grid(torch.zeros(3)).abs().max()) == 0.0
