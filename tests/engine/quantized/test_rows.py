import pytest
import torch
from torch import nn

from tests.support.quantizable import build, samples
from worker.engine.quantized import rows as rows_module
from worker.engine.quantized.placement import layer_calls
from worker.engine.quantized.rows import Sampler, Walk, patches, position_count, row_limit

LAYERS = {
    "plain": (nn.Conv2d(3, 4, 3, padding=1), (2, 3, 7, 6)),
    "strided": (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(0, 1), dilation=(1, 2), groups=2), (3, 4, 9, 8)),
    "depthwise": (nn.Conv2d(5, 10, 3, groups=5), (2, 5, 6, 6)),
    "same": (nn.Conv2d(2, 3, 5, dilation=2, padding="same"), (2, 2, 6, 7)),
    "reflected": (nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 2, 6, 7)),
    "signal": (nn.Conv1d(4, 8, 5, stride=3, padding=2, groups=4), (2, 4, 20)),
    "linear": (nn.Linear(6, 5), (4, 6)),
    "linear 3-D": (nn.Linear(6, 5), (2, 7, 6)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_rows_times_the_weight_are_the_layers_output(name: str) -> None:
    layer, shape = LAYERS[name]
    value = torch.randn(shape)
    at = torch.randperm(position_count(layer, value))
    found = patches(layer, value, at)
    outputs = torch.einsum("rgk,gck->rgc", found, layer.weight.reshape(found.shape[1], -1, found.shape[2]))
    wanted = layer(value) if isinstance(layer, nn.Linear) else layer(value).movedim(1, -1)
    torch.testing.assert_close(outputs.flatten(1) + layer.bias, wanted.reshape(-1, len(layer.bias))[at])


def test_a_walk_goes_on_from_where_it_stopped_and_a_fork_does_not_move_it() -> None:
    network = build("residual")
    x = torch.randn(2, 3, 16, 16)
    walk = Walk(network.module)
    walk.to("two", [x])
    before = walk.reading("two").clone()
    fork = walk.fork()
    fork.to("head", [])
    torch.testing.assert_close(walk.reading("two"), before)
    walk.to("head", [])
    torch.testing.assert_close(walk.reading("head"), fork.reading("head"))
    torch.testing.assert_close(network.module.head(walk.reading("head")), network.module(x)[0])
    walk.restart()
    assert walk.bytes() == 0


def rows_of(name: str, path: str, count: int) -> tuple[rows_module.Rows, nn.Module]:
    network = build(name)
    calls = [node.name for node, _ in layer_calls(network.module) if node.target == path]
    layer = network.module.get_submodule(path)
    return Sampler(network, network.module, samples(network, count), "cpu", 0).rows(calls, layer), layer


@pytest.mark.parametrize("path", ["stem", "two", "head"])
def test_rows_of_equal_networks_have_outputs_that_fit_their_inputs(path: str) -> None:
    found, layer = rows_of("residual", path, 40)
    weight = layer.weight.reshape(1, -1, found.inputs.shape[2])
    outputs = torch.einsum("rgk,gck->rgc", found.inputs, weight) + (0.0 if layer.bias is None else layer.bias)
    torch.testing.assert_close(outputs, found.outputs, rtol=1e-4, atol=1e-4)


def test_the_number_of_rows_is_bounded_and_does_not_grow_with_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    assert row_limit(nn.Conv2d(4, 4, 3)) == rows_module.MOST_ROWS
    wide = nn.Linear(1 << 14, 4)
    assert row_limit(wide) * (1 << 16) <= rows_module.MOST_BYTES
    monkeypatch.setattr(rows_module, "MOST_ROWS", 128)
    assert [len(rows_of("residual", "two", count)[0].inputs) for count in (16, 64)] == [128, 128]


def test_values_that_do_not_fit_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = rows_of("residual", "one", 40)[0]
    monkeypatch.setattr(rows_module, "_WAITING", 0)
    torch.testing.assert_close(rows_of("residual", "one", 40)[0].inputs, kept.inputs)
