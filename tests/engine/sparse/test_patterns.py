"""Masks hold what they promise for any shape: how many go, which, and in which pattern."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from worker.engine.sparse.patterns import (
    fits_fours,
    follows_fours,
    lowest,
    lowest_across,
    lowest_in_rows,
    lowest_of_four,
    lowest_share,
)

shapes = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple)
shares = st.floats(0.01, 0.99)
seeds = st.integers(0, 1000)


def scores_of(shape: tuple[int, ...], seed: int) -> Tensor:
    """Few different values: there are always ties."""
    return torch.randint(0, 5, shape, generator=torch.Generator().manual_seed(seed)).float()


@given(shapes, shares, seeds)
def test_a_share_is_met_exactly_by_the_lowest(shape: tuple[int, ...], share: float, seed: int) -> None:
    scores = scores_of(shape, seed)
    mask = lowest_share(scores, share)
    assert mask.shape == scores.shape
    assert int(mask.sum()) == round(share * scores.numel())
    if 0 < int(mask.sum()) < scores.numel():
        assert scores[mask].max() <= scores[~mask].min()


def test_none_and_all() -> None:
    scores = scores_of((3, 4), 0)
    assert not lowest(scores, 0).any()
    assert lowest(scores, 12).all()
    assert lowest(torch.zeros(6), 2).tolist() == [True, True, False, False, False, False]  # the first of equal ones


@given(st.lists(shapes, min_size=1, max_size=4), shares, seeds)
def test_layers_compete(found: list[tuple[int, ...]], share: float, seed: int) -> None:
    scores = {str(index): scores_of(shape, seed + index) for index, shape in enumerate(found)}
    masks = lowest_across(scores, share)
    assert {name: mask.shape for name, mask in masks.items()} == {name: value.shape for name, value in scores.items()}
    gone = torch.cat([scores[name][mask] for name, mask in masks.items()])
    kept = torch.cat([scores[name][~mask] for name, mask in masks.items()])
    assert len(gone) == round(share * (len(gone) + len(kept)))
    if len(gone) and len(kept):
        assert gone.max() <= kept.min()


@given(shapes, shares, seeds)
def test_rows_lose_alike(shape: tuple[int, ...], share: float, seed: int) -> None:
    scores = scores_of(shape, seed)
    mask = lowest_in_rows(scores, share)
    assert mask.shape == scores.shape
    assert int(mask.sum()) == round(share * scores.numel())
    rows = mask.reshape(len(mask), -1)
    counts = rows.sum(1)
    assert int(counts.max() - counts.min()) <= 1
    for row, gone in zip(scores.reshape(len(mask), -1), rows, strict=True):
        if gone.any() and not gone.all():
            assert row[gone].max() <= row[~gone].min()


@given(st.integers(1, 6), st.integers(1, 5), st.lists(st.integers(1, 3), max_size=3), seeds)
def test_two_of_every_four_inputs(outputs: int, fours: int, taps: list[int], seed: int) -> None:
    scores = scores_of((outputs, 4 * fours, *taps), seed)
    assert fits_fours(scores)
    mask = lowest_of_four(scores)
    assert mask.shape == scores.shape
    assert int(mask.sum()) * 2 == scores.numel()
    for four in range(fours):  # along dimension 1, at every output and tap
        here = mask[:, 4 * four : 4 * four + 4]
        assert (here.sum(1) == 2).all()
        inside = scores[:, 4 * four : 4 * four + 4]
        gone, kept = inside.masked_fill(~here, -math.inf), inside.masked_fill(here, math.inf)
        assert (gone.amax(1) <= kept.amin(1)).all()
    assert follows_fours((scores + 1).masked_fill(mask, 0.0))


@settings(max_examples=50)
@given(st.floats(0.05, 0.5), seeds)
def test_on_the_way_to_two_of_four_only_those_go_that_will(share: float, seed: int) -> None:
    scores = torch.rand(8, 12, 3, generator=torch.Generator().manual_seed(seed))
    mask = lowest_of_four(scores, share)
    assert int(mask.sum()) == round(share * scores.numel())
    assert not (mask & ~lowest_of_four(scores)).any()


@pytest.mark.parametrize("shape", [(8, 3), (8, 6, 3, 3), (8, 1, 3, 3), (8,)])
def test_other_inputs_do_not_fall_into_fours(shape: tuple[int, ...]) -> None:
    assert not fits_fours(torch.zeros(shape))


def test_three_of_four_is_no_pattern() -> None:
    weight = torch.tensor([[1.0, 2.0, 3.0, 0.0]])
    assert not follows_fours(weight)
    assert follows_fours(weight * torch.tensor([1, 0, 1, 1]))
