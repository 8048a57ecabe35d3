"""The per-layer report over several steps."""

from pathlib import Path

import torch
from torch import nn

from app.recipes import TARGETS as GRIDS
from app.recipes import Step
from app.recipes.methods import Distill, FactorizeSvd, LayerFilter, PruneWeights, QuantizeDynamic
from tests.support.quantizable import Notebook
from worker.engine.data.samples import Samples
from worker.engine.formats.lift import network_of
from worker.engine.methods import METHODS
from worker.engine.methods.layers import merged
from worker.engine.network import Network
from worker.engine.state import Compressed, Context


def stack() -> Network:
    torch.manual_seed(0)
    module = nn.Sequential(*[nn.Linear(32, 32) for _ in range(3)]).eval()
    return network_of(module, (torch.randn(3, 32),))


def factorize(*names: str) -> FactorizeSvd:
    return FactorizeSvd(rank_ratio=0.5, activation_aware=False, layers=LayerFilter(include=names))


def run(compressed: Compressed, steps: list[Step], folder: Path, training: Samples | None = None) -> Compressed:
    context = Context(
        {"onnxruntime": GRIDS["onnxruntime"]}, Notebook(), folder, training=training, original=compressed.network
    )  # fmt: skip
    for step in steps:
        compressed = METHODS[type(step)](compressed, step, context)
    return compressed


def test_rows_are_merged_by_name() -> None:
    before = [{"name": "0", "bits": 8}, {"name": "1.weight", "bits": 8}, {"name": "gone", "bits": 8}]
    rows = merged(before, [{"name": "0", "bits": 4}], stack())
    assert rows == [{"name": "1.weight", "bits": 8}, {"name": "0", "bits": 4}]


def test_each_layer_has_the_row_of_the_step_that_changed_it_last(tmp_path: Path) -> None:
    both = [factorize("0"), PruneWeights(sparsity=0.5), factorize("1")]
    done = run(Compressed(stack()), both, tmp_path)
    names = [row["name"] for row in done.layers]
    assert sorted(names) == ["0", "0.expand", "0.reduce", "1", "2"]
    assert [row["name"] for row in done.layers if "ranks" in row] == ["0", "1"]
    quantized = run(done, [QuantizeDynamic()], tmp_path)
    rows = {row["name"]: row for row in quantized.layers}
    assert len(rows) == len(quantized.layers)
    assert rows.keys() == {"0", "0.expand", "0.reduce", "1", "1.expand", "1.reduce", "2"}
    assert {name for name, row in rows.items() if "ranks" in row} == {"0", "1"}
    assert rows["2"]["bits"] == 8


def test_a_student_of_its_own_has_no_rows_of_the_network_before(tmp_path: Path) -> None:
    network = stack()
    before = Compressed(network, layers=[{"name": "0"}], pareto=[{"macs": 1}])
    data = Samples({network.inputs[0].name: torch.randn(32, 32).numpy()})
    for student, count in ((None, 1), ({"width": 0.5}, 0)):
        step = Distill(epochs=1, batch_size=16, student=student)
        done = run(before, [step], tmp_path, data)
        assert len(done.layers) == len(done.pareto) == count
