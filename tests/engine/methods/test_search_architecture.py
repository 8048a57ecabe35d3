"""``search.architecture``: what comes out keeps the limit, beats equal widths, and can be gone on with."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from app.recipes import TARGETS as GRIDS
from app.recipes import parse_recipe
from app.recipes.methods import SearchArchitecture
from tests.support import handwriting
from tests.support.quantizable import Notebook
from worker.engine import checkpoint
from worker.engine.errors import InvalidDataset, Unsupported
from worker.engine.formats.lift import network_of
from worker.engine.measure.macs import count_macs
from worker.engine.network import Network
from worker.engine.pipeline import JobInput, run
from worker.engine.state import Compressed

STEP: dict[str, Any] = {"epochs": 3, "batch_size": 64, "learning_rate": 3e-3, "trials": 12, "round_to": 2}


class Digits(nn.Module):
    """Two residual blocks and a kernel that can shrink."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 12, 5, padding=2), nn.BatchNorm2d(12), nn.ReLU())
        self.first, self.second = self._block(), self._block()
        self.down = nn.Sequential(nn.Conv2d(12, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.ReLU())
        self.head = nn.Linear(24 * 16, 10)

    @staticmethod
    def _block() -> nn.Sequential:
        inner = nn.Conv2d(12, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 12, 1), nn.BatchNorm2d(12)
        return nn.Sequential(*inner)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        x = torch.relu(x + self.first(x))
        x = torch.relu(x + self.second(x))
        return self.head(self.down(x).flatten(1))


@cache
def trained() -> Digits:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return handwriting.fit(Digits(), epochs=6, rate=5e-3)


@pytest.fixture(scope="module")
def network() -> Network:
    return network_of(trained(), (torch.zeros(2, 1, 8, 8),))


def macs(network: Network) -> int:
    return sum(count_macs(network).values())


@pytest.mark.parametrize("strategy", ["evolutionary", "reinforcement", "differentiable"])
def test_the_best_one_keeps_the_limit_and_beats_equal_widths(strategy: str, network: Network, tmp_path: Path) -> None:
    before = {key: value.clone() for key, value in network.module.state_dict().items()}
    done = handwriting.run(network, SearchArchitecture(strategy=strategy, limit_ratio=0.3, **STEP), tmp_path)
    assert macs(done.network) <= 0.3 * macs(network)
    (best,) = [row for row in done.pareto if row["chosen"]]
    assert (best["macs"], best["parameters"]) == (macs(done.network), done.network.parameters)
    assert best["size_bytes"] == 4 * done.network.parameters
    for layer, width in best["widths"].items():
        assert done.network.module.get_submodule(layer).weight.shape[0] == width
    for layer, size in best.get("kernels", {}).items():
        assert done.network.module.get_submodule(layer).kernel_size == (size, size)
    gone = {layer for block in best["skipped"] for layer in block}
    assert not gone & {str(node.target) for node in done.network.module.graph.nodes if node.op == "call_module"}
    told = next(note for note in done.notes if note.startswith(f"search ({strategy})"))
    values = [
        float(part.split()[0].rstrip(";")) for part in told.replace("narrow: ", "accuracy ").split("accuracy ")[1:]
    ]
    assert values[0] == pytest.approx(best["metric"]["value"], abs=1e-4)
    assert values[0] >= values[1]
    assert handwriting.accuracy(done.network.module) > 0.75
    assert any(note.startswith("search cost ") for note in done.notes)
    assert len(done.curves["loss"]) == len(done.curves["accuracy"]) == 3
    assert not done.network.module.training
    assert done.network.source is None
    cheaper = [(row["macs"], row["metric"]["value"]) for row in done.pareto]
    assert cheaper == sorted(cheaper)
    assert cheaper[-1][0] == macs(network)
    for key, value in network.module.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


def test_the_number_of_parameters_can_be_the_limit(network: Network, tmp_path: Path) -> None:
    step = SearchArchitecture(limit="size", limit_ratio=0.4, **{**STEP, "epochs": 1, "trials": 6})
    done = handwriting.run(network, step, tmp_path)
    assert done.network.parameters <= 0.4 * network.parameters


def test_latency_is_measured_whole_in_the_target(network: Network, tmp_path: Path) -> None:
    grids = {"torch": GRIDS["torch"]}
    step = SearchArchitecture(limit="latency", limit_ratio=0.9, **{**STEP, "epochs": 1, "trials": 4})
    done = handwriting.run(network, step, tmp_path, grids=grids)
    assert all(row["latency_ms"] > 0 for row in done.pareto)
    note = next(note for note in done.notes if note.startswith("torch: the one that goes on takes"))
    assert "measured whole" in note
    assert macs(done.network) < macs(network)


def test_an_interrupted_one_ends_with_the_same_network(network: Network, tmp_path: Path) -> None:
    step = SearchArchitecture(limit_ratio=0.3, **{**STEP, "epochs": 2, "trials": 6})
    whole = handwriting.run(network, step, tmp_path)
    notebook = Notebook()
    partial = handwriting.interrupted(network, step, tmp_path)
    resumed = handwriting.run(network, step, tmp_path, resumed=partial, reporter=notebook)
    assert any(line.startswith("Training goes on after epoch 1") for line in notebook.lines)
    assert resumed.curves == whole.curves
    assert resumed.pareto == whole.pareto
    handwriting.same_numbers(whole.network, resumed.network)


def test_without_labels_it_compares_with_the_uploaded_model(network: Network, tmp_path: Path) -> None:
    unlabelled = replace(handwriting.training(network), labels=None)
    step = SearchArchitecture(limit_ratio=0.4, **STEP)
    done = handwriting.run(network, step, tmp_path, training=unlabelled, original=network)
    assert handwriting.accuracy(done.network.module) > 0.7
    with pytest.raises(InvalidDataset) as caught:
        handwriting.run(network, step.model_copy(update={"teacher": False}), tmp_path, training=unlabelled)
    assert caught.value.code == "labels_required"


def test_a_checkpoint_holds_the_pareto_set(network: Network, tmp_path: Path) -> None:
    rows = [{"macs": 5, "chosen": True, "widths": {"a": 3}}]
    checkpoint.save(Compressed(network, pareto=rows), [], tmp_path / "c.zip", network)
    assert checkpoint.load(tmp_path / "c.zip", network).compressed.pareto == rows


def test_it_says_what_it_needs(network: Network, tmp_path: Path) -> None:
    few = handwriting.training(network).take(np.arange(6))
    cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({"limit_ratio": 0.0001}, {}, "budget_too_small"),
        ({"layers": {"include": ["nose"]}}, {}, "unknown_layer"),
        ({"layers": {"include": ["head"]}}, {}, "no_layers"),
        ({}, {"training": None}, "training_required"),
        ({}, {"training": few}, "too_few_samples"),
    ]
    for changes, context, code in cases:
        with pytest.raises((Unsupported, InvalidDataset)) as caught:
            handwriting.run(network, SearchArchitecture(**{**STEP, **changes}), tmp_path, **context)
        assert caught.value.code == code


class Named(nn.Module):
    """Gives the input a name of its own."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image)


def test_a_whole_job_makes_an_artifact_of_it(tmp_path: Path) -> None:
    dynamic = {"image": {0: torch.export.Dim("batch")}}
    program = torch.export.export(Named(trained()).eval(), (torch.zeros(2, 1, 8, 8),), dynamic_shapes=dynamic)
    torch.export.save(program, tmp_path / "net.pt2")
    given = handwriting.training(network_of(trained(), (torch.zeros(2, 1, 8, 8),)))
    images, labels = next(iter(given.inputs.values())), np.asarray(given.labels)
    np.savez(tmp_path / "training.npz", image=images[:800], label=labels[:800])
    np.savez(tmp_path / "evaluation.npz", image=images[800:], label=labels[800:])
    steps = [
        {"method": "search.architecture", "limit_ratio": 0.4, **{**STEP, "trials": 6}},
        {"method": "finetune", "epochs": 2, "learning_rate": 2e-3},
    ]
    job = JobInput(
        model=tmp_path / "net.pt2",
        recipe=parse_recipe({"steps": steps}),
        targets=("onnxruntime",),
        output=tmp_path,
        data={"training": tmp_path / "training.npz", "evaluation": tmp_path / "evaluation.npz"},
        task="classification",
    )
    result = run(job, Notebook())
    metrics = result.metrics
    before, after = metrics["baseline"]["onnxruntime"], metrics["artifacts"]["onnxruntime"]
    assert after["macs"] <= 0.4 * before["macs"]
    assert after["size_bytes"] < before["size_bytes"]
    assert after["metric"]["value"] > 0.8
    (best,) = [row for row in metrics["pareto"] if row["chosen"]]
    assert best["macs"] == after["macs"]
    assert len(metrics["curves"]["loss"]) == 5


def test_a_network_of_two_outputs_is_compared_by_the_first_and_says_so(tmp_path: Path) -> None:
    two = network_of(handwriting.two_heads(), (torch.zeros(2, 1, 8, 8),))
    step = SearchArchitecture(**{**STEP, "epochs": 1, "trials": 4})
    done = handwriting.run(two, step, tmp_path, original=two)
    assert len(done.network.outputs) == 2
    assert done.network.parameters < two.parameters
    assert any("alone" in note for note in done.notes)
