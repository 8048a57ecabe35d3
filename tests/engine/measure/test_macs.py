"""Multiply-accumulates, against sums done by hand."""

from pathlib import Path

import pytest
import torch
from torch import nn

from worker.engine import formats
from worker.engine.measure.macs import count_costs, count_macs, random_inputs
from worker.engine.network import Network


class Net(nn.Module):
    """One of everything that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2)
        self.line = nn.Conv1d(8, 6, 5, padding=2)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.twice = nn.Linear(16, 16)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        small = self.conv(image)
        rows = self.line(small.flatten(2))
        products = torch.bmm(rows, rows.transpose(1, 2))
        return self.norm(self.up(small)), products, self.twice(torch.relu(self.twice(rows)))


@pytest.mark.parametrize("fixed", [False, True])
def test_every_kind_of_product(tmp_path: Path, fixed: bool) -> None:
    counts = count_macs(network(tmp_path, Net(), (4, 8, 8), fixed=fixed))
    assert counts.pop("conv") == 8 * 4 * 4 * (4 // 2) * 9
    assert counts.pop("line") == 6 * 16 * 8 * 5
    assert counts.pop("up") == 8 * 4 * 4 * 4 * 4
    assert counts.pop("twice") == 2 * 6 * 16 * 16
    assert sum(counts.values()) == 6 * 6 * 16


class Chain(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.cat([x, x], 1)
        z = y * 2
        return z[:, :1] + 1.5


@pytest.mark.parametrize("fixed", [False, True])
def test_bytes_of_values_of_a_sample(tmp_path: Path, fixed: bool) -> None:
    costs = count_costs(network(tmp_path, Chain(), (4, 8, 8), fixed=fixed))
    one = 4 * 8 * 8 * 4
    assert costs.value_bytes == (5.5 if fixed else 7.5) * one, "views count as well"
    assert costs.live_bytes == 4 * one, "what is read and what is made of it; the input is gone by then"


def test_random_inputs_are_repeatable_and_fit(tmp_path: Path) -> None:
    made = network(tmp_path, Net(), (4, 8, 8))
    (one,), (two,) = random_inputs(made, 3), random_inputs(made, 3)
    assert one.shape == (3, 4, 8, 8)
    assert one.std() > 0.5
    assert torch.equal(one, two)


def network(folder: Path, net: nn.Module, shape: tuple[int, ...], *, fixed: bool = False) -> Network:
    dynamic = None if fixed else ({0: torch.export.Dim("batch")},)
    program = torch.export.export(net.eval(), (torch.zeros(1 if fixed else 2, *shape),), dynamic_shapes=dynamic)
    torch.export.save(program, folder / "net.pt2")
    return formats.read(folder / "net.pt2")
