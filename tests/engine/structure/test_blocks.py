"""Residual blocks: which are found, and what is left when they are skipped."""

import pytest
import torch
from torch import nn

from tests.support.channels import built
from worker.engine.formats.lift import network_of
from worker.engine.measure.macs import count_macs, random_inputs
from worker.engine.structure.blocks import blocks, periods, skip, thinned


@pytest.mark.parametrize(
    ("name", "count", "period"),
    [("resnet18", 5, 1), ("vit", 6, 2), ("bert", 6, 2), ("mobilenet", None, None), ("plain", 0, None)],
)
def test_blocks_are_found_and_can_be_skipped(name: str, count: int | None, period: int | None) -> None:
    whole = built(name)
    found = blocks(whole)
    if count is not None:
        assert len(found) == count
    if period is not None:
        assert {len(group) for group in periods(found)} == {period}
    inputs = random_inputs(whole, 2)
    expected = whole.module(*inputs)
    left = [block.add for block in found]
    shorter = skip(whole, left)
    if not found:
        assert shorter is whole
        return
    assert sum(count_macs(shorter).values()) < sum(count_macs(whole).values())
    gone = {path for block in found for path in block.layers}
    assert not gone & {str(node.target) for node in shorter.module.graph.nodes if node.op == "call_module"}
    for one, other in zip(shorter.module(*inputs), expected, strict=True):
        assert one.shape == other.shape
    for one, other in zip(whole.module(*inputs), expected, strict=True):
        torch.testing.assert_close(one, other)


class Zero(nn.Module):
    """A block that adds nothing, and a value that is also read outside of its block."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.nothing, self.second = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        nn.init.zeros_(self.nothing.weight)
        nn.init.zeros_(self.nothing.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.first(x))
        x = x + self.nothing(torch.relu(x))
        inner = self.second(x)
        return x + inner + inner.square()


def test_a_block_that_adds_nothing_is_not_missed() -> None:
    whole = network_of(Zero().eval(), (torch.randn(2, 4),))
    (block,) = blocks(whole)
    assert block.layers == ("nothing",)
    x = torch.randn(3, 4)
    torch.testing.assert_close(skip(whole, [block.add]).module(x), whole.module(x))


def test_a_share_of_the_blocks_stays_evenly_spread() -> None:
    found = blocks(built("vit"))
    left = thinned(found, 2 / 3)
    assert [block.add for block in left] == [block.add for block in found[4:]] or len(left) == 2
    assert len(thinned(found, 1.0)) == 0
    assert len(thinned(found, 0.0)) == len(found) - 2
    assert {block.kind for block in thinned(found, 1 / 3)} == {block.kind for block in found}
