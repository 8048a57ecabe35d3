"""The architectures of torch-pruning's own tests go through `prune.channels` and still export."""

from pathlib import Path

import numpy as np
import pytest
import torch

from app.recipes.methods import PruneChannels
from tests.support import channels, onnx_models
from tests.support.pruning_peers import ELSEWHERE, PEERS
from tests.support.quantizable import Notebook
from worker.engine.formats.lift import network_of
from worker.engine.methods import METHODS
from worker.engine.network import Network
from worker.engine.state import Compressed, Context
from worker.engine.targets.onnx_export import export_onnx

Inputs = tuple[torch.Tensor, ...]


def written(name: str) -> tuple[Network, Inputs]:
    torch.manual_seed(0)
    module = PEERS[name]().train()
    shapes: tuple[tuple[int, ...], ...] = module.shapes  # type: ignore[assignment]
    inputs = tuple(torch.randn(4, *shape) for shape in shapes)
    for _ in range(3):
        module(*inputs)
    return network_of(module.eval(), inputs), inputs


@pytest.mark.parametrize("name", [*PEERS, *ELSEWHERE])
def test_half_of_the_channels_go_and_the_rest_exports(name: str, tmp_path: Path) -> None:
    network, inputs = written(name) if name in PEERS else (channels.built(name), channels.drawn(name))
    step = PruneChannels(ratio=0.5, round_to=1, scope="layer")
    done = METHODS[PruneChannels](Compressed(network), step, Context({}, Notebook(), tmp_path)).network
    assert done.parameters < 0.8 * network.parameters
    with torch.no_grad():
        expected = done.module(*inputs)
    for one, other in zip(expected, network.module(*inputs), strict=True):
        assert one.shape == other.shape
    exported = export_onnx(done, tmp_path)
    got = onnx_models.runtime(exported.path, *(value.numpy() for value in inputs))
    for one, other in zip(expected, got, strict=True):
        np.testing.assert_allclose(one.numpy(), other, atol=1e-4, rtol=1e-4)


def test_the_widths_are_those_that_were_asked_for(tmp_path: Path) -> None:
    network, _ = written("CascadedConcat")
    step = PruneChannels(ratio=0.5, round_to=1, scope="layer")
    done = METHODS[PruneChannels](Compressed(network), step, Context({}, Notebook(), tmp_path)).network
    paths = ("parts.0.0", "parts.0.3", "parts.1.0", "parts.1.3", "parts.2", "parts.3")
    assert [done.module.get_submodule(path).out_channels for path in paths] == [4, 4, 8, 8, 12, 24]
