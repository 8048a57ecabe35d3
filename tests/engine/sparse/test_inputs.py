"""Wanda and SparseGPT on layers whose inputs are correlated, as behind other layers they are."""

import pytest
import torch
from torch import Tensor

from worker.engine.sparse.inputs import Share, output_error, sparsegpt, wanda
from worker.engine.sparse.patterns import follows_fours, lowest_of_four, lowest_share

#: Shape of a weight, and groups: linear, convolutions of one and two dimensions, grouped, depthwise.
LAYERS = {
    "linear": ((24, 160), 1),
    "conv1d": ((12, 16, 5), 1),
    "conv2d": ((16, 12, 3, 3), 1),
    "grouped": ((16, 8, 3, 3), 2),
    "depthwise": ((16, 1, 3, 3), 16),
}
FOURS = [name for name, (shape, _) in LAYERS.items() if shape[1] % 4 == 0]


def layer(name: str, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Weight, inputs of sizes that differ and correlate, and nothing that is gone already."""
    torch.manual_seed(seed)
    shape, groups = LAYERS[name]
    k = torch.Size(shape[1:]).numel()
    mixing = torch.randn(groups, 8, k) + 0.3 * torch.eye(8, k)
    inputs = torch.randn(groups, 2000, 8) @ mixing + 0.3 * torch.randn(groups, 2000, k)
    inputs = inputs * torch.exp(torch.randn(groups, 1, k))
    weight = torch.randn(shape)
    return weight, inputs, torch.zeros(shape, dtype=torch.bool)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.77])
@pytest.mark.parametrize("name", LAYERS)
def test_the_share_is_met_exactly(name: str, share: float) -> None:
    weight, inputs, gone = layer(name)
    for prune in (wanda, sparsegpt):
        mask, kept = prune(weight, inputs, gone, Share(share, fours=False))
        assert abs(int(mask.sum()) - share * weight.numel()) <= 1
        assert not kept[mask].any()
        assert kept[~mask].all()


@pytest.mark.parametrize("name", LAYERS)
def test_outputs_change_least_with_sparsegpt_and_less_with_wanda(name: str) -> None:
    weight, inputs, gone = layer(name)
    share = Share(0.5, fours=False)
    by_size = output_error(weight, weight.masked_fill(lowest_share(weight.abs(), 0.5), 0.0), inputs)
    by_inputs, made_good = (output_error(weight, p(weight, inputs, gone, share)[1], inputs) for p in (wanda, sparsegpt))
    assert made_good < (1.0 if name == "depthwise" else 0.8) * by_inputs <= by_inputs < by_size


@pytest.mark.parametrize("name", FOURS)
def test_two_of_four_likewise(name: str) -> None:
    weight, inputs, gone = layer(name)
    share = Share(0.5, fours=True)
    by_size = output_error(weight, weight.masked_fill(lowest_of_four(weight.abs()), 0.0), inputs)
    found = [p(weight, inputs, gone, share) for p in (wanda, sparsegpt)]
    for mask, kept in found:
        assert follows_fours(kept)
        assert int(mask.sum()) * 2 == mask.numel()
    by_inputs, made_good = (output_error(weight, kept, inputs) for _, kept in found)
    assert made_good < 0.8 * by_inputs < by_inputs < by_size


def test_wanda_takes_the_lowest_products_of_each_row() -> None:
    weight = torch.tensor([[1.0, -2.0, 3.0, 4.0], [4.0, 3.0, -2.0, 1.0]])
    inputs = torch.tensor([[[10.0, 1.0, 1.0, 0.1]]])  # products 10 2 3 .4 and 40 3 2 .1
    mask, kept = wanda(weight, inputs, torch.zeros(2, 4, dtype=torch.bool), Share(0.5, fours=False))
    assert mask.tolist() == [[False, True, False, True], [False, False, True, True]]
    assert torch.equal(kept, weight * ~mask)


def test_inputs_that_are_always_zero_go_first_and_only_as_many_as_asked_for() -> None:
    weight, inputs, gone = layer("linear")
    inputs[..., :40] = 0
    mask, kept = sparsegpt(weight, inputs, gone, Share(0.2, fours=False))
    assert abs(int(mask.sum()) - 0.2 * weight.numel()) <= 1
    assert mask[:, :40].sum() > 0.6 * mask.sum()  # each block of 128 gives its share, and this is in the first
    assert not mask[:, 40:128].any()
    assert torch.equal(kept[:, :40], weight[:, :40] * ~mask[:, :40])


@pytest.mark.parametrize("prune", [wanda, sparsegpt])
def test_what_is_gone_stays_gone(prune: object) -> None:
    weight, inputs, gone = layer("conv2d")
    gone[:, ::2] = torch.rand(gone[:, ::2].shape) < 0.7
    weight = weight.masked_fill(gone, 0.0)
    for share in (0.1, 0.6):
        mask, kept = prune(weight, inputs, gone, Share(share, fours=False))  # type: ignore[operator]
        assert (mask >= gone).all()
        assert not kept[gone].any()
    assert abs(int(mask.sum()) - 0.6 * mask.numel()) <= 1
