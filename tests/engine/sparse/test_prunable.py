"""Which weights may be pruned, and why others may not."""

import torch
from torch import nn

from app.recipes.methods import LayerFilter
from tests.support.networks import ZOO, make
from tests.support.written_out import UNet
from worker.engine.formats.lift import network_of
from worker.engine.sparse.prunable import prunable


def of(name: str) -> object:
    torch.manual_seed(0)
    return network_of(make(name), ZOO[name].inputs(2))


def test_matrices_of_layers_and_neither_embeddings_nor_what_is_shared_with_them() -> None:
    found = prunable(of("recurrent"), LayerFilter(), fours=False)
    assert "gru.weight_hh_l0" in found.names
    assert "lstm.weight_ih_l1_reverse" in found.names
    assert not any("bias" in name or "embedding" in name or "decoder" in name for name in found.names)
    (name, reason), *rest = found.left.items()
    assert not rest
    assert name == "decoder.weight"
    assert reason == "it is shared with embedding"


def test_norms_are_left_alone_and_filters_narrow() -> None:
    network = of("resnet18")
    everything = prunable(network, LayerFilter(), fours=False)
    assert all(".bn" not in name and not name.startswith("bn") for name in everything.names)
    assert len(everything.names) == 21
    some = prunable(network, LayerFilter(include=("layer1.*",), exclude=("*conv2",)), fours=False)
    assert some.names == ("layer1.0.conv1.weight", "layer1.1.conv1.weight")


def test_fours_need_inputs_in_fours() -> None:
    found = prunable(of("mobilenet"), LayerFilter(), fours=True)
    assert "stem.weight" in found.left
    assert found.left["stem.weight"] == "its inputs (3) are no multiple of 4"
    assert "blocks.0.depthwise.0.weight" in found.left
    assert "blocks.0.project.0.weight" in found.names


def test_transposed_convolutions_go_anywhere_but_not_in_fours() -> None:
    torch.manual_seed(0)
    network = network_of(UNet().eval(), (torch.randn(2, 3, 32, 32),))
    assert "up.weight" in prunable(network, LayerFilter(), fours=False).names
    assert "transposed" in prunable(network, LayerFilter(), fours=True).left["up.weight"]


def test_a_layer_that_is_called_twice_counts_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(torch.relu(self.layer(x)))

    network = network_of(Twice().eval(), (torch.randn(2, 4),))
    assert prunable(network, LayerFilter(), fours=True).names == ("layer.weight",)


def test_a_weight_that_the_graph_also_reads_is_left_alone() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x)) @ self.a.weight.T

    found = prunable(network_of(Tied().eval(), (torch.randn(2, 4),)), LayerFilter(), fours=False)
    assert found.names == ("b.weight",)
    assert found.left == {"a.weight": "it is shared with a.weight, which the model reads by itself"}
