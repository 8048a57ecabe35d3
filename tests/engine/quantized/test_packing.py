"""Integers of odd widths lie in bytes without gaps."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.engine.quantized.packing import pack, parts, unpack


@settings(deadline=None)
@given(bits=st.integers(1, 8), count=st.integers(1, 67), seed=st.integers(0, 2**31))
def test_what_is_packed_comes_back(bits: int, count: int, seed: int) -> None:
    codes = torch.randint(0, 1 << bits, (count,), generator=torch.Generator().manual_seed(seed))
    packed = pack(codes, bits)
    assert torch.equal(unpack(packed, bits, count).long(), codes)
    assert sum(part.numel() for part in packed) == sum(math.ceil(count * width / 8) for width in parts(bits))


@pytest.mark.parametrize(("bits", "expected"), [(1, (1,)), (3, (2, 1)), (4, (4,)), (7, (4, 2, 1)), (8, (8,))])
def test_a_width_is_a_sum_of_powers_of_two(bits: int, expected: tuple[int, ...]) -> None:
    assert parts(bits) == expected


def test_the_first_value_is_in_the_low_bits() -> None:
    (packed,) = pack(torch.tensor([1, 2, 3, 0, 2]), 2)
    assert packed.flatten().tolist() == [0b00_11_10_01, 0b10]
