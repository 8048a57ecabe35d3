"""What a step cost and brought, against figures taken by hand."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from app.recipes.methods import QuantizeStatic, QuantizeWeights
from tests.support.quantizable import build, compress, samples, sqnr_db
from worker.engine.data.samples import Samples
from worker.engine.formats.lift import network_of
from worker.engine.measure import effects as module
from worker.engine.measure.effects import Effects, change, stored_bytes, told
from worker.engine.network import Network
from worker.engine.quantized.fake import fake_quantized
from worker.engine.state import Compressed


def outputs(run: nn.Module, data: Samples) -> np.ndarray:
    with torch.no_grad():
        return run(*(torch.from_numpy(array) for array in data.inputs.values()))[0].numpy()


def labelled(network: Network, count: int = 200) -> Samples:
    """Samples of which the network gets three quarters right."""
    data = samples(network, count, seed=5)
    labels = outputs(network.module, data).argmax(1)
    labels[::4] = (labels[::4] + 1) % 10
    return replace(data, labels=labels)


def pruned(network: Network) -> Compressed:
    changed = replace(network, module=copy.deepcopy(network.module))
    with torch.no_grad():
        changed.module.one.weight[:, :8] = 0
    return Compressed(changed)


@pytest.fixture
def network() -> Network:
    return build("residual")


@pytest.fixture
def effects(network: Network) -> Effects:
    return Effects(network, labelled(network), "classification", "onnxruntime")


def test_before_is_the_network_as_read(network: Network, effects: Effects) -> None:
    parameters = sum(value.numel() for value in network.module.parameters())
    assert effects.before == {
        "parameters": parameters,
        "nonzero_parameters": sum(int((value != 0).sum()) for value in network.module.parameters()),
        "macs": 16 * 16 * 16 * 27 + 3 * 8 * 8 * 16 * 144 + 160,  # `two` runs twice
        "size_bytes": 4 * parameters,
        "quantized_layers": 0,
        "metric": {"name": "accuracy", "value": 0.75, "samples": 200},
    }
    assert effects.figures(Compressed(network)) is effects.before


def test_what_pruning_changed(network: Network, effects: Effects) -> None:
    compressed = pruned(network)
    data = effects.samples
    assert data is not None and data.labels is not None
    after = effects.figures(compressed)
    scores = outputs(compressed.network.module, data)
    accuracy = float((scores.argmax(1) == data.labels).mean())
    assert after["metric"] == {"name": "accuracy", "value": pytest.approx(accuracy), "samples": 200}
    assert accuracy < 0.75
    assert after["fidelity_db"] == pytest.approx(sqnr_db(outputs(network.module, data), scores), abs=0.1)
    assert after["nonzero_parameters"] == effects.before["nonzero_parameters"] - 16 * 8 * 9
    assert after["size_bytes"] == effects.before["size_bytes"]
    assert change(effects.before, after) == {
        "size_ratio": 1.0,
        "macs_ratio": 1.0,
        "metric": pytest.approx(accuracy - 0.75),
    }


def test_what_quantization_changed(network: Network, effects: Effects, tmp_path: Path) -> None:
    compressed = compress(network, QuantizeStatic(), tmp_path, ("onnxruntime", "torch"))
    form, data = compressed.quantized["onnxruntime"], effects.samples
    assert data is not None and data.labels is not None
    after = effects.figures(compressed)
    scores = outputs(fake_quantized(form), data)
    assert after["metric"]["value"] == pytest.approx(float((scores.argmax(1) == data.labels).mean()), abs=0.011)
    assert after["fidelity_db"] == pytest.approx(sqnr_db(outputs(network.module, data), scores), abs=0.5)
    assert after["quantized_layers"] == 4
    assert (after["macs"], after["parameters"]) == (effects.before["macs"], effects.before["parameters"])
    channels, biases = 16 + 16 + 16 + 10, 16 + 16 + 16 + 10  # folding gives each convolution a bias
    weights = 16 * 27 + 2 * 16 * 144 + 160
    assert after["size_bytes"] == weights + 4 * (channels + biases)
    assert change(effects.before, after)["size_ratio"] == pytest.approx(after["size_bytes"] / (4 * after["parameters"]))


def test_bits_are_counted_of_the_first_target(network: Network, tmp_path: Path) -> None:
    compressed = compress(network, QuantizeWeights(bits=4, group_size=-1), tmp_path, ("torch",))
    weights = compressed.quantized["torch"].weights.values()
    floats = 4 * sum(len(weight.bias) for weight in weights if weight.bias is not None)
    assert stored_bytes(compressed, "torch") == sum(weight.stored_bits for weight in weights) // 8 + floats
    assert stored_bytes(compressed, "onnxruntime") == 4 * network.parameters


def test_an_unchanged_network_is_counted_once(
    network: Network, effects: Effects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = []

    def count(seen: Network) -> dict[str, int]:
        counted.append(seen)
        return {"all": 10}

    monkeypatch.setattr(module, "count_macs", count)
    assert effects.before["macs"] == 10
    quantized = compress(network, QuantizeStatic(), tmp_path)
    effects.figures(quantized)
    changed = pruned(network)
    effects.figures(changed)
    effects.figures(changed)
    effects.facts(network)
    assert [id(one) for one in counted] == [id(network), id(changed.network)]


def test_samples_are_bounded_by_number_work_and_room(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    data = labelled(network, 1200)

    def tried() -> int:
        return int(Effects(network, data, "classification", "torch").before["metric"]["samples"])

    assert tried() == 1000
    macs = Effects(network, None, None, "torch").before["macs"]
    monkeypatch.setattr(module, "_WORK", 100 * macs)
    assert tried() == 100
    monkeypatch.setattr(module, "_WORK", macs)
    assert tried() == 8
    monkeypatch.setattr(module, "_WORK", 1000 * macs)
    monkeypatch.setattr(module, "_ROOM", 4 * 10 * 64)  # two batches of ten scores
    assert tried() == 64


def test_without_labels_or_samples(network: Network) -> None:
    unlabelled = Effects(network, samples(network), None, "torch")
    assert "metric" not in unlabelled.before
    after = unlabelled.figures(pruned(network))
    assert after["fidelity_db"] < 40
    assert "metric" not in change(unlabelled.before, after)
    nothing = Effects(network, None, None, "torch").figures(pruned(network))
    assert not {"metric", "fidelity_db"} & set(nothing)


class Pooled(nn.Module):
    """The second output is one for all samples together."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.fc(x)
        return scores, scores.mean(0)


@pytest.mark.parametrize("fixed", [None, 1, 4])
def test_networks_that_do_not_take_or_give_batches(fixed: int | None) -> None:
    torch.manual_seed(0)
    network = network_of(Pooled().eval(), (torch.randn(fixed or 2, 6),), dynamic_batch=fixed is None)
    data = samples(network, 22)
    changed = replace(network, module=copy.deepcopy(network.module))
    with torch.no_grad():
        changed.module.fc.weight[0] = 0
    after = Effects(network, data, None, "torch").figures(Compressed(changed))
    assert ("fidelity_db" in after) == (fixed != 4)  # a mean over four samples belongs to none of them
    assert after["parameters"] == 21


def test_another_networks_answers_are_not_compared(network: Network, effects: Effects) -> None:
    class Other(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)

    other = network_of(Other(), (torch.zeros(2, 3, 16, 16),))
    assert not {"metric", "fidelity_db"} & set(effects.figures(Compressed(other)))


def test_a_row_in_words() -> None:
    row = {
        "method": "prune.channels",
        "seconds": 3.14,
        "metric": {"name": "accuracy", "value": 0.91, "samples": 10},
        "change": {"size_ratio": 0.5, "macs_ratio": 0.25, "metric": -0.02},
    }
    assert told(row) == (
        "prune.channels: done in 3.1 s, 50.0% of the size, 25.0% of the MACs, accuracy 0.9100 (-0.0200)."
    )
    assert told({"method": "x", "seconds": 1.0, "change": {"size_ratio": 1.0, "macs_ratio": 1.0}}) == (
        "x: done in 1.0 s, 100.0% of the size."
    )
