"""Sums of outer products."""

from functools import reduce

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from worker.engine.factorized.cp import Als, Cp, TooLong, cp, smallest, weights, work
from worker.engine.methods.factorize_convolution import balanced


def factors(shape: tuple[int, ...], rank: int, seed: int) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(size, rank, generator=random, dtype=torch.float64) for size in shape]


def whole(parts: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    rank = parts[0].shape[1]
    terms = [reduce(lambda left, right: left[..., None] * right, [part[:, r] for part in parts]) for r in range(rank)]
    return torch.stack(terms).sum(0)


def found_in(tensor: Tensor, rank: int, restarts: int = 4) -> Cp:
    found = cp(tensor, rank, Als(0, restarts, 300))
    assert found is not None
    return found


@settings(deadline=None, max_examples=15)
@given(st.sampled_from([(6, 5, 3, 3), (8, 4, 5), (9, 7, 3, 5)]), st.integers(1, 3), st.integers(0, 50))
def test_what_is_a_sum_is_found(shape: tuple[int, ...], rank: int, seed: int) -> None:
    tensor = whole(factors(shape, rank, seed))
    found = found_in(tensor, rank)
    assert found.error < 0.02
    assert float((tensor - whole(found.factors)).norm() / tensor.norm()) == pytest.approx(found.error, abs=1e-6)


@settings(deadline=None, max_examples=10)
@given(st.floats(0.2, 0.9), st.integers(0, 50))
def test_the_promised_error_is_kept(most: float, seed: int) -> None:
    tensor = whole(factors((8, 8, 3, 3), 6, seed))
    found = smallest(tensor, most, 12, Als(0, 2, 100))
    assert found is not None
    assert found.error <= most
    assert float((tensor - whole(found.factors)).norm() / tensor.norm()) <= most + 1e-9


def test_an_error_out_of_reach() -> None:
    tensor = torch.randn(8, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    assert smallest(tensor, 0.01, 4, Als(0, 1, 50)) is None


def test_components_that_cancel_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """``a a b + a b a + b a a`` has rank 3; two terms come as near as one likes and grow on the way (De Silva, Lim)."""
    monkeypatch.setattr("worker.engine.factorized.cp._CANCELLING", 10)  # growing to the true limit takes minutes
    a, b = torch.eye(2, dtype=torch.float64)
    tensor = sum(torch.einsum("i,j,k->ijk", *each) for each in ((a, a, b), (a, b, a), (b, a, a)))
    assert isinstance(tensor, Tensor)
    assert cp(tensor, 2, Als(0, 3, 2000)) is None
    assert found_in(tensor, 3).error < 0.02


def test_the_same_seed_gives_the_same() -> None:
    tensor = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    one, other = found_in(tensor, 4), found_in(tensor, 4)
    for first, second in zip(one.factors, other.factors, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_nothing_at_all() -> None:
    found = found_in(torch.zeros(4, 3, 3), 2)
    assert found.error == 0
    assert [tuple(part.shape) for part in found.factors] == [(4, 2), (3, 2), (3, 2)]
    assert weights((4, 3, 3), 2) == 20


def test_components_are_spread_evenly() -> None:
    parts = [part.mT * scale for part, scale in zip(factors((6, 5, 3), 4, 0), (1.0, 100.0, 0.01), strict=True)]
    even = balanced(*parts)
    torch.testing.assert_close(whole([part.mT for part in even]), whole([part.mT for part in parts]))
    sizes = torch.stack([part.norm(dim=1) for part in even])
    torch.testing.assert_close(sizes, sizes[:1].expand_as(sizes))


def test_few_terms_of_a_large_kernel_take_a_small_core() -> None:
    als = Als(0, 1, 50)
    assert work((512, 512, 3, 3), 100, als) < 0.1 * 50 * 4 * 512 * 512 * 9 * 100
    tensor = whole(factors((200, 150, 3, 3), 5, 0))
    told: list[float] = []
    found = cp(tensor, 5, Als(0, 3, 200, told.append))
    assert found is not None
    assert found.error < 0.02
    assert told


def test_ranks_grow_from_what_the_unfoldings_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest rank is not tried at all, and none where an unfolding says that it cannot suffice."""
    tried: list[int] = []

    def noted(kernel: Tensor, rank: int, als: Als) -> Cp | None:
        tried.append(rank)
        return cp(kernel, rank, als)

    monkeypatch.setattr("worker.engine.factorized.cp.cp", noted)
    told: list[float] = []
    found = smallest(whole(factors((20, 20, 3, 3), 4, 0)), 0.1, 300, Als(0, 3, 200, told.append))
    assert found is not None
    assert max(tried) <= 6
    assert told == sorted(told)
    tried.clear()
    noise = torch.randn(16, 16, 3, 3, generator=torch.Generator().manual_seed(0))
    assert smallest(noise, 0.1, 10, Als(0, 1, 50)) is None
    assert not tried


def test_too_much_work_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = whole(factors((12, 12, 3, 3), 6, 0))
    monkeypatch.setattr("worker.engine.factorized.cp._MOST_WORK", 1e4)
    with pytest.raises(TooLong):
        cp(tensor, 8, Als(0, 1, 50))
    with pytest.raises(TooLong):
        smallest(tensor, 0.3, 12, Als(0, 1, 50))
