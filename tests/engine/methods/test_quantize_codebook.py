"""``quantize.codebook`` from the recipe step to the files."""

from pathlib import Path
from typing import Any

import pytest
import torch

from app.recipes.methods import LayerFilter, QuantizeCodebook
from tests.support import handwriting, looked_up
from tests.support.quantizable import build, compress, samples, sqnr_db
from worker.engine.errors import Unsupported
from worker.engine.formats.lift import network_of
from worker.engine.network import Network
from worker.engine.quantized.fake import fake_quantized
from worker.engine.quantized.observe import tensors


@pytest.fixture(scope="module")
def network() -> Network:
    return looked_up.network(256)


@pytest.mark.parametrize("target", ["onnxruntime", "torch"])
@pytest.mark.parametrize(
    "step",
    [
        QuantizeCodebook(),
        QuantizeCodebook(bits=1),
        QuantizeCodebook(bits=3, group="channel", layers=LayerFilter(include=("2", "4"))),
        QuantizeCodebook(bits=8, vector=2),
        QuantizeCodebook(bits=4, vector=4),
    ],
    ids=lambda step: f"{step.bits}-{step.group}-{step.vector}",
)
def test_files_and_checkpoints_hold_it(step: QuantizeCodebook, target: str, network: Network, tmp_path: Path) -> None:
    done = compress(network, step, tmp_path, (target,))
    looked_up.check_file(done, target, network, tmp_path)


def test_more_bits_are_more_faithful(network: Network, tmp_path: Path) -> None:
    inputs = tensors(samples(network, 32, seed=2).inputs, network, "cpu")
    found = []
    for bits in (1, 2, 4, 8):
        form = compress(network, QuantizeCodebook(bits=bits), tmp_path).quantized["onnxruntime"]
        with torch.no_grad():
            found.append(sqnr_db(network.module(*inputs)[0], fake_quantized(form)(*inputs)[0]))
    assert found == sorted(found)
    assert found[2] > 16
    assert found[3] > 30


def test_a_codebook_larger_than_its_weights_is_left_out(network: Network, tmp_path: Path) -> None:
    done = compress(network, QuantizeCodebook(bits=5, group="channel"), tmp_path)
    assert set(done.quantized["onnxruntime"].weights) == {"2", "4", "5"}
    assert any(note.startswith("0 stays in float: its codebook would be larger") for note in done.notes)
    with pytest.raises(Unsupported) as caught:
        compress(build("two_inputs"), QuantizeCodebook(bits=8), tmp_path)
    assert caught.value.code == "no_layers"


@pytest.mark.parametrize("settings", [{"bits": 2}, {"bits": 1, "group": "channel"}, {"bits": 3, "vector": 2}], ids=str)
def test_tuned_centroids_lose_less(settings: dict[str, Any], tmp_path: Path) -> None:
    network = network_of(handwriting.trained(norm=True, width=16), (torch.zeros(2, 1, 8, 8),))
    found = handwriting.run(network, QuantizeCodebook(**settings), tmp_path)
    step = QuantizeCodebook(**settings, finetune=True, epochs=4, batch_size=32, learning_rate=1e-3)
    tuned = handwriting.run(network, step, tmp_path)
    before, lost, after = (
        handwriting.accuracy(module)
        for module in (network.module, *(fake_quantized(done.quantized["torch"]) for done in (found, tuned)))
    )
    assert before - lost > 0.03
    assert after - lost > (before - lost) / 2
    for path, weight in found.quantized["torch"].weights.items():
        assert torch.equal(tuned.quantized["torch"].weights[path].values, weight.values)
    assert len(tuned.curves["loss"]) == 4


def test_an_interrupted_tuning_ends_with_the_same_numbers(network: Network, tmp_path: Path) -> None:
    step = QuantizeCodebook(bits=3, vector=2, finetune=True, epochs=3)
    data = samples(network, 64, seed=2)
    whole = handwriting.run(network, step, tmp_path, training=data)
    partial = handwriting.interrupted(network, step, tmp_path, training=data)
    assert not any("codes" in name for name in partial.tensors)
    resumed = handwriting.run(network, step, tmp_path, training=data, resumed=partial)
    assert resumed.curves == whole.curves
    for path, weight in whole.quantized["torch"].weights.items():
        torch.testing.assert_close(
            resumed.quantized["torch"].weights[path].dequantized(), weight.dequantized(), rtol=0, atol=0
        )
