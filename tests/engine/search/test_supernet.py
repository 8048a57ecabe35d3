"""Spaces and supernets of the usual families: masks against networks that were really made, and what these cost."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from app.recipes.methods import LayerFilter, SearchArchitecture
from tests.support.architectures import ARCHITECTURES
from worker.engine.formats.lift import network_of
from worker.engine.measure.macs import count_macs, random_inputs
from worker.engine.network import Network
from worker.engine.search.costs import Costs, Soft
from worker.engine.search.space import Genes, Space, make_space
from worker.engine.search.supernet import Elastic, faithful, sandwich

STEP = SearchArchitecture(round_to=1, widths=(0.25, 0.5, 0.75))


class Kernels(nn.Module):
    """Large kernels, with and without dilation, one depthwise; one whose padding cannot shrink; a residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 7, 2, 3)
        self.wide = nn.Conv2d(8, 8, 5, padding=4, dilation=2, groups=8)
        self.norm = nn.BatchNorm2d(8)
        self.same = nn.Conv2d(8, 8, 5, padding="same")
        self.bare = nn.Conv2d(8, 4, 5)
        self.head = nn.Linear(4, 3)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.stem(image))
        x = x + self.same(torch.relu(self.norm(self.wide(x))))
        return self.head(torch.relu(self.bare(x)).mean((2, 3)))


class Tied(nn.Module):
    """A language model whose output layer is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.norm = nn.Embedding(20, 16), nn.LayerNorm(16)
        self.up, self.down, self.head = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 20, bias=False)
        self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens)
        return self.head(self.norm(x + self.down(torch.relu(self.up(x)))))


def network(name: str) -> Network:
    if name == "tied":
        torch.manual_seed(0)
        return network_of(Tied().eval(), (torch.zeros(2, 6, dtype=torch.long),))
    if name == "kernels":
        torch.manual_seed(0)
        return network_of(Kernels().eval(), (torch.randn(2, 3, 24, 24),))
    architecture = ARCHITECTURES[name]
    return network_of(architecture.build(), tuple(architecture.draw(2).values()))


def drawn(space: Space, random: np.random.Generator) -> Genes:
    return tuple(int(random.integers(len(decision.options))) for decision in space.decisions)


@pytest.mark.parametrize(
    "name",
    ["plain", "resnet18", "mobilenet", "densenet", "transformer", "vit", "bert", "shufflenet", "kernels", "tied"],
)
def test_a_masked_network_is_the_one_that_is_really_made_and_costs_are_exact(name: str) -> None:
    whole = network(name)
    before = {key: value.clone() for key, value in whole.module.state_dict().items()}
    space, odd = faithful(whole, make_space(whole, STEP))
    assert not odd
    assert len(space.decisions) >= 3
    costs = Costs(space)
    assert costs.whole == (sum(count_macs(whole).values()), whole.parameters)
    random, inputs = np.random.default_rng(0), random_inputs(whole, 2)
    elastic = Elastic(whole, space).eval()
    for genes in (space.smallest, *(drawn(space, random) for _ in range(3))):
        made = space.materialise(whole, genes)
        assert costs.macs(genes) == sum(count_macs(made).values())
        assert costs.parameters(genes) == made.parameters
        canonical = space.canonical(genes)
        assert (costs.macs(canonical), costs.parameters(canonical)) == (costs.macs(genes), costs.parameters(genes))
        assert space.canonical(canonical) == canonical
        elastic.choice = elastic.choice_of(genes)
        with torch.no_grad():
            for one, other in zip(elastic(*inputs), made.module(*inputs), strict=True):
                if one.is_floating_point():
                    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    elastic.choice = elastic.choice_of(space.largest)
    for one, other in zip(elastic(*inputs), whole.module(*inputs), strict=True):
        torch.testing.assert_close(one, other)
    for key, value in whole.module.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


def test_kernels_shrink_where_the_padding_can() -> None:
    whole = network("kernels")
    space = make_space(whole, STEP)
    kernels = {d.name: d.options for d in space.decisions if d.kind == "kernel"}
    assert kernels == {"stem": (3, 5, 7), "wide": (3, 5), "same": (3, 5)}
    genes = tuple(0 if d.kind == "kernel" else d.last for d in space.decisions)
    made = space.materialise(whole, genes)
    sizes = {name: made.module.get_submodule(name).weight.shape[2:] for name in kernels}
    assert set(sizes.values()) == {(3, 3)}
    assert [one.shape for one in made.module(torch.randn(2, 3, 24, 24))] == [(2, 3)]
    expected = whole.module.get_submodule("stem").weight[:, :, 2:5, 2:5]
    torch.testing.assert_close(made.module.get_submodule("stem").weight, expected, rtol=0, atol=0)


def test_blocks_that_are_left_out_take_their_choices_along() -> None:
    whole = network("resnet18")
    space = make_space(whole, STEP)
    genes = tuple(0 if d.kind == "depth" else d.last for d in space.decisions)
    pairs = zip(space.decisions, genes, strict=True)
    narrow = tuple(0 if (d.kind, d.name) == ("width", "layer1.0.conv1") else gene for d, gene in pairs)
    assert narrow != genes
    assert space.canonical(narrow) == genes
    told = space.describe(genes)
    assert "layer1.0.conv1" not in told["widths"]
    assert told["skipped"][0][:2] == ["layer1.0.conv1", "layer1.0.bn1"]
    assert told["widths"]["conv1"] == 8


def test_the_most_important_units_stay() -> None:
    whole = network("plain")
    with torch.no_grad():  # three channels that matter
        whole.module.get_submodule("features.0").weight[[1, 4, 6]] *= 10
    space = make_space(whole, SearchArchitecture(round_to=3, widths=(0.375,)))
    at = next(i for i, d in enumerate(space.decisions) if d.name == "features.0")
    made = space.materialise(whole, tuple(0 if i == at else d.last for i, d in enumerate(space.decisions)))
    expected = whole.module.get_submodule("features.0").weight[[1, 4, 6]]
    torch.testing.assert_close(made.module.get_submodule("features.0").weight, expected, rtol=0, atol=0)


def test_parameters_narrow_the_space() -> None:
    whole = network("resnet18")

    def kinds(**changes: Any) -> dict[str, int]:
        space = make_space(whole, SearchArchitecture(**{"round_to": 1, "widths": (0.5,), **changes}))
        return {kind: sum(d.kind == kind for d in space.decisions) for kind in ("width", "depth", "kernel")}

    assert kinds() == {"width": 12, "depth": 5, "kernel": 1}
    assert kinds(depth=False, kernels=False) == {"width": 12, "depth": 0, "kernel": 0}
    assert kinds(layers=LayerFilter(include=("layer4.*",))) == {"width": 3, "depth": 1, "kernel": 0}
    assert kinds(widths=(1.0,)) == {"width": 0, "depth": 5, "kernel": 1}
    wide = make_space(whole, SearchArchitecture(round_to=8, widths=(0.3, 0.5)))
    assert all(o * d.family.each % 8 == 0 for d in wide.decisions if d.family is not None for o in d.options)


@pytest.mark.parametrize("name", ["resnet18", "kernels", "transformer"])
def test_a_sure_mixture_costs_what_its_candidate_does(name: str) -> None:
    whole = network(name)
    space = make_space(whole, STEP)
    costs = Costs(space)
    for genes in (space.largest, drawn(always_whole_blocks(space), np.random.default_rng(1))):
        keep = torch.from_numpy(space.keep(genes)).float()
        gates = {key: torch.tensor(float(stays)) for key, stays in space.chosen(genes, "depth").items()}
        kernels = {key: torch.tensor(float(size**2)) for key, size in space.chosen(genes, "kernel").items()}
        soft = Soft(keep, gates, kernels)
        assert float(costs.soft_macs(soft)) == pytest.approx(costs.macs(genes))
        assert float(costs.soft_parameters(soft)) == pytest.approx(costs.parameters(genes))


def always_whole_blocks(space: Space) -> Space:
    """With one option left for depth: independent gates only come to the same without nested blocks."""
    return Space(
        space.network,
        space.structure,
        [dataclasses.replace(d, options=(1,)) if d.kind == "depth" else d for d in space.decisions],
    )


def test_gates_cost_what_is_left_without_their_blocks() -> None:
    whole = network("resnet18")
    space = make_space(whole, STEP)
    costs = Costs(space)
    genes = tuple(0 if d.kind == "depth" else d.last for d in space.decisions)
    gates = {name: torch.tensor(0.0) for name in space.skipped(genes)}
    soft = Soft(torch.ones(space.structure.units), gates, {})
    assert float(costs.soft_macs(soft)) == pytest.approx(costs.macs(genes))
    halves = {name: torch.tensor(0.5, requires_grad=True) for name in gates}
    costs.soft_macs(Soft(torch.ones(space.structure.units), halves, {})).backward()
    assert all(gate.grad is not None and float(gate.grad) > 0 for gate in halves.values())


def test_training_runs_each_candidate_of_the_step_and_only_the_largest_leaves_statistics() -> None:
    whole = network("resnet18")
    space = make_space(whole, STEP)
    random = np.random.default_rng(3)
    some = [space.largest, space.smallest, drawn(space, random), drawn(space, random)]
    pupil = sandwich(whole, space, lambda random: some, 0)
    pupil.settle(frozen=False)
    pupil.start_step(0.25)
    (x,) = random_inputs(whole, 8)
    for genes in some:
        got = pupil.module(x)[0]
        alone = space.materialise(whole, genes).module.train()
        torch.testing.assert_close(got, alone(x)[0], rtol=1e-4, atol=1e-4)
    once = space.materialise(whole, space.largest).module.train()
    once(x)
    torch.testing.assert_close(
        pupil.network.module.get_submodule("bn1").running_mean, once.get_submodule("bn1").running_mean
    )
    again = sandwich(whole, space, lambda random: [drawn(space, random)], 7)
    twins = []
    for share in (0.5, 0.1, 0.5):
        again.start_step(share)
        twins.append(again.module.turns[0].keep)
    assert torch.equal(twins[0], twins[2])
    assert not torch.equal(twins[0], twins[1])


@pytest.mark.parametrize(
    ("name", "sliced"), [("resnet18", True), ("mobilenet", True), ("kernels", True), ("transformer", False)]
)
def test_narrow_candidates_compute_less_where_no_sizes_are_written(name: str, sliced: bool) -> None:
    whole = network(name)
    space = make_space(whole, STEP)
    pupil = sandwich(whole, space, lambda random: [space.largest, drawn(space, random)], 0)
    elastic, inputs = pupil.elastic, random_inputs(whole, 8)
    assert elastic.sliced == sliced
    pupil.settle(frozen=False)
    for genes in (space.smallest, drawn(space, np.random.default_rng(5))):
        elastic.choice, slopes = elastic.choice_of(genes), []
        for mode in (sliced, False):
            elastic.sliced = mode
            elastic.zero_grad()
            torch.manual_seed(0)  # dropout
            result = elastic(*inputs)[0]
            result.square().sum().backward()
            slopes.append([result.detach(), *(p.grad for p in elastic.parameters() if p.grad is not None)])
        elastic.sliced = sliced
        for one, other in zip(*slopes, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * max(1.0, float(other.abs().max())))
    groups = [part.groups for part in whole.module.modules() if isinstance(part, nn.Conv2d)]
    assert groups == [part.groups for part in pupil.network.module.modules() if isinstance(part, nn.Conv2d)]


class Across(nn.Module):
    """A norm over channels without weights of its own: nothing tells a mask which of them count."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        self.norm = nn.LayerNorm(16, elementwise_affine=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.three(torch.relu(self.two(self.norm(self.one(x)))))


def test_what_masks_cannot_imitate_is_found_out() -> None:
    torch.manual_seed(0)
    whole = network_of(Across().eval(), (torch.randn(3, 6),))
    space = make_space(whole, STEP)
    kept, odd = faithful(whole, space)
    assert {decision.name for decision in kept.decisions} >= {"two"}
    assert {decision.name for decision in odd} == {d.name for d in space.decisions} - {d.name for d in kept.decisions}
    genes = kept.smallest
    elastic = Elastic(whole, kept).eval()
    elastic.choice = elastic.choice_of(genes)
    x = torch.randn(5, 6)
    torch.testing.assert_close(elastic(x)[0], kept.materialise(whole, genes).module(x)[0], rtol=1e-4, atol=1e-5)
