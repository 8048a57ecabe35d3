"""A whole job in the engine: a small network trained on real digits, every target, measured as exported."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from app.recipes import Limits, Recipe, Step, parse_recipe
from app.recipes.methods import QuantizeDynamic
from app.recipes.methods.distill import Distill, Student
from worker.engine.errors import UserError
from worker.engine.methods import METHODS
from worker.engine.network import Network
from worker.engine.pipeline import PHASES, JobInput, JobResult, ModelFile, _Keeper, run
from worker.engine.state import Compressed, Context, Partial

STATIC = parse_recipe({"steps": [{"method": "quantize.static", "samples": 64}]})
DYNAMIC = parse_recipe({"steps": [{"method": "quantize.dynamic"}]})
THEN_FINETUNED = parse_recipe({"steps": [{"method": "search.architecture"}, {"method": "finetune"}]})
TARGETS = ("onnxruntime", "openvino", "torch")
HELD_OUT = 700

pytestmark = pytest.mark.xdist_group("pipeline")  # one process trains the network and runs the job that many tests ask


class Collector:
    """A reporter that remembers everything."""

    def __init__(self) -> None:
        self.progressed: list[tuple[str, float]] = []
        self.logs: list[tuple[str, str]] = []
        self.metrics: dict[str, Any] = {}
        self.checkpoints: list[Path] = []
        self.locked = 0

    def progress(self, phase: str, fraction: float) -> None:
        self.progressed.append((phase, fraction))

    def log(self, message: str, level: str = "info") -> None:
        self.logs.append((level, message))

    def metric(self, name: str, value: Any) -> None:
        self.metrics[name] = value

    def checkpoint(self, label: str, file: Path) -> None:
        self.checkpoints.append(file)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        self.locked += 1
        yield


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    data = load_digits()
    return (data.images[:, None] / 16).astype(np.float32), data.target.astype(np.int64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, digits: tuple) -> Path:
    """A trained ``net.pt2`` and its datasets."""
    folder = tmp_path_factory.mktemp("digits")
    images, labels = digits
    _save(_trained(images[:-HELD_OUT], labels[:-HELD_OUT]), folder / "net.pt2")
    np.savez(folder / "calibration.npz", image=images[:200])
    np.savez(folder / "labelled.npz", image=images[:-HELD_OUT], label=labels[:-HELD_OUT])
    np.savez(folder / "evaluation.npz", image=images[-HELD_OUT:], label=labels[-HELD_OUT:])
    return folder


def _trained(images: np.ndarray, labels: np.ndarray) -> nn.Module:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # two spin against each other on a busy machine
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, stride=2), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(6):
        for rows in torch.randperm(len(images)).split(64):
            loss = nn.functional.cross_entropy(net(torch.from_numpy(images)[rows]), torch.from_numpy(labels)[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval()


class Named(nn.Module):
    """Gives the input a name of its own."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.net(image)


def _save(net: nn.Module, path: Path, *, batch: int | None = None) -> None:
    shape = (batch or 2, 1, 8, 8)
    dynamic = None if batch else {"image": {0: torch.export.Dim("batch")}}
    torch.export.save(torch.export.export(Named(net).eval(), (torch.zeros(shape),), dynamic_shapes=dynamic), path)


def job(folder: Path, output: Path, **changes: Any) -> JobInput:
    output.mkdir(exist_ok=True)
    data = {"calibration": folder / "calibration.npz", "evaluation": folder / "evaluation.npz"}
    return replace(
        JobInput(
            model=folder / "net.pt2",
            recipe=STATIC,
            targets=("onnxruntime",),
            output=output,
            filename="digits net.pt2",
            data=data,
            evaluation_dataset_id="dst_1",
            threads=1,
        ),
        **changes,
    )


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[JobResult, Collector]:
    """A job for all three targets."""
    reporter = Collector()
    limits = Limits(max_metric_drop=0.02, max_size_ratio=0.6, min_sqnr_db=15)
    output = tmp_path_factory.mktemp("output")
    return run(job(folder, output, targets=TARGETS, limits=limits, provenance={"job_id": "job_1"}), reporter), reporter


def test_every_target_keeps_the_accuracy(whole: tuple[JobResult, Collector]) -> None:
    result, _ = whole
    assert result.gate["passed"], result.gate
    assert {(row["target"], row["limit"]) for row in result.gate["checks"]} == {
        (target, limit) for target in TARGETS for limit in ("max_metric_drop", "max_size_ratio", "min_sqnr_db")
    }
    for target in TARGETS:
        before, after = result.metrics["baseline"][target], result.metrics["artifacts"][target]
        assert before["metric"]["name"] == "accuracy"
        assert before["metric"]["value"] > 0.9
        assert after["metric"]["value"] > 0.9
        low, high = after["metric"]["ci95"]
        assert low < after["metric"]["value"] < high
        assert after["metric_drop"]["value"] == pytest.approx(before["metric"]["value"] - after["metric"]["value"])
        assert after["evaluation"] == {"dataset_id": "dst_1", "samples": HELD_OUT, "source": "evaluation"}
        assert after["fidelity"]["agreement"] > 0.97
        assert "fidelity" not in before


def test_figures_are_complete_and_plausible(whole: tuple[JobResult, Collector]) -> None:
    result, _ = whole
    for target in TARGETS:
        before, after = result.metrics["baseline"][target], result.metrics["artifacts"][target]
        for side in (before, after):
            assert 0 < side["latency_ms"]["p50"] <= side["latency_ms"]["p90"] <= side["latency_ms"]["p99"]
            assert side["throughput_per_s"] > 0
            assert side["peak_memory_bytes"] > 20 * 1024**2
            assert side["parameters"] >= side["nonzero_parameters"] > 30_000
            assert side["macs"] == 8 * 8 * 16 * 9 + 4 * 4 * 32 * 16 * 9 + 512 * 64 + 64 * 10
        assert after["size_bytes"] < 0.6 * before["size_bytes"]
    json.dumps(result.metrics, allow_nan=False)


def test_size_and_digest_are_those_of_the_file(whole: tuple[JobResult, Collector]) -> None:
    result, _ = whole
    assert [made.filename for made in result.artifacts] == [
        "digits_net.int8.onnx", "digits_net.int8.openvino.zip", "digits_net.int8.pt2",
    ]  # fmt: skip
    assert [made.format for made in result.artifacts] == ["onnx", "openvino", "pt2"]
    for made in result.artifacts:
        size = made.path.stat().st_size
        assert made.manifest["artifact"]["size_bytes"] == size
        assert result.metrics["artifacts"][made.target]["size_bytes"] == size


def test_manifest_says_how_to_make_it_again(whole: tuple[JobResult, Collector]) -> None:
    manifest = whole[0].artifacts[0].manifest
    assert parse_recipe(manifest["recipe"]) == STATIC
    assert set(manifest["inputs"]) == {"model", "calibration", "evaluation"}
    assert len(manifest["inputs"]["model"]["sha256"]) == 64
    assert manifest["versions"]["torch"] == torch.__version__
    assert manifest["hardware"]["cores"] >= 1
    assert (manifest["seed"], manifest["threads"], manifest["job_id"]) == (0, 1, "job_1")
    assert manifest["timings"]["total_s"] > 0


def test_progress_goes_through_the_phases_and_never_back(whole: tuple[JobResult, Collector]) -> None:
    _, reporter = whole
    fractions = [fraction for _, fraction in reporter.progressed]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert list(dict.fromkeys(phase for phase, _ in reporter.progressed)) == list(PHASES)
    for phase, fraction in reporter.progressed:
        assert PHASES[phase][0] <= fraction <= PHASES[phase][1]
    assert reporter.locked >= len(TARGETS)
    assert set(reporter.metrics) == {f"artifacts.{target}" for target in TARGETS}


def test_each_step_says_what_it_cost_and_brought(whole: tuple[JobResult, Collector]) -> None:
    result, reporter = whole
    before, (row,) = result.metrics["before"], result.metrics["steps"]
    baseline, artifact = (result.metrics[side]["torch"] for side in ("baseline", "artifacts"))
    for side, figures in ((baseline, before), (artifact, row)):
        assert {figures[name] == side[name] for name in ("parameters", "nonzero_parameters", "macs")} == {True}
    assert row["method"] == "quantize.static"
    assert row["seconds"] > 0
    assert row["quantized_layers"] == 4
    assert before["size_bytes"] == 4 * before["parameters"]
    assert row["change"]["size_ratio"] == pytest.approx(row["size_bytes"] / before["size_bytes"], abs=1e-6)
    assert 0.24 < row["change"]["size_ratio"] < 0.3
    assert "metric" not in row  # of a single step, the files tell
    assert any(line.startswith("quantize.static: done in ") and "of the size" in line for _, line in reporter.logs)


def test_the_next_step_is_measured_against_the_one_before(folder: Path, tmp_path: Path) -> None:
    steps = [
        {"method": "quantize.weights", "bits": 8, "layers": {"include": ["net.0", "net.3"]}},
        {"method": "quantize.dynamic", "layers": {"include": ["net.7", "net.9"]}},
    ]
    reporter = Collector()
    asked = {"recipe": parse_recipe({"steps": steps}), "targets": ("torch",)}
    result = run(job(folder, tmp_path / "out", **asked), reporter)
    sizes = [figures["size_bytes"] for figures in (result.metrics["before"], *result.metrics["steps"])]
    assert sizes[0] > sizes[1] > sizes[2]
    ratios = [row["change"]["size_ratio"] for row in result.metrics["steps"]]
    assert ratios == [pytest.approx(sizes[1] / sizes[0], abs=1e-6), pytest.approx(sizes[2] / sizes[1], abs=1e-6)]
    before, last = result.metrics["before"], result.metrics["steps"][1]
    for side, figures in (("baseline", before), ("artifacts", last)):
        assert figures["metric"]["samples"] == HELD_OUT
        assert figures["metric"]["value"] == pytest.approx(result.metrics[side]["torch"]["metric"]["value"], abs=0.005)
    first = result.metrics["steps"][0]
    assert last["change"]["metric"] == last["metric"]["value"] - first["metric"]["value"]
    assert last["fidelity_db"] == pytest.approx(result.metrics["artifacts"]["torch"]["fidelity"]["sqnr_db"], abs=3)
    resumed = run(job(folder, tmp_path / "again", resume=reporter.checkpoints[0], **asked), Collector())
    for row, again in zip(result.metrics["steps"], resumed.metrics["steps"], strict=True):
        assert {**again, "seconds": 0} == {**row, "seconds": 0}
    assert resumed.metrics["steps"][0] == result.metrics["steps"][0], "a step that is done is not measured again"


def swap(compressed: Compressed, step: Step, context: Context) -> Compressed:
    """The student in place of the network: what distillation starts from."""
    (name,) = step.models
    student, again = context.models[name](), context.models[name]()
    assert student.module is not again.module, "each call reads the file anew"
    return replace(compressed, network=student)


def test_a_step_may_read_another_model(
    folder: Path, tmp_path: Path, digits: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    _save(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), tmp_path / "student.pt2")
    monkeypatch.setattr("worker.engine.pipeline.METHODS", {**METHODS, Distill: swap})
    recipe = Recipe(steps=(Distill(student=Student(model_id="mdl_2")), QuantizeDynamic()))
    asked = {"recipe": recipe, "models": {"mdl_2": ModelFile(tmp_path / "student.pt2", "pt2")}}
    reporter = Collector()
    result = run(job(folder, tmp_path / "out", **asked), reporter)
    first, second = result.metrics["steps"]
    assert (first["parameters"], first["macs"]) == (650, 640)
    assert result.metrics["artifacts"]["onnxruntime"]["parameters"] == 650
    assert result.metrics["baseline"]["onnxruntime"]["parameters"] > 30_000
    assert first["change"]["macs_ratio"] < 0.02
    assert first["metric"]["value"] < 0.5 < result.metrics["before"]["metric"]["value"]
    assert second["quantized_layers"] == 1
    manifest = result.artifacts[0].manifest
    assert manifest["inputs"]["mdl_2"]["size_bytes"] == (tmp_path / "student.pt2").stat().st_size
    again = run(job(folder, tmp_path / "again", resume=reporter.checkpoints[0], **asked), Collector())
    assert again.artifacts[0].manifest["artifact"] == manifest["artifact"]


def test_a_step_whose_model_was_not_given(folder: Path, tmp_path: Path) -> None:
    recipe = Recipe(steps=(Distill(student=Student(model_id="mdl_2")),))
    with pytest.raises(UserError, match="model_not_found"):
        run(job(folder, tmp_path / "out", recipe=recipe), Collector())


def test_slower_and_larger_is_told(whole: tuple[JobResult, Collector]) -> None:
    result, reporter = whole
    for target in TARGETS:
        before, after = result.metrics["baseline"][target], result.metrics["artifacts"][target]
        slower = after["latency_ms"]["p50"] > before["latency_ms"]["p50"]
        told = any("slower" in note for note in after["notes"])
        assert told == slower
        assert ("warning", f"{after['notes'][0]}" if told else "") in reporter.logs or not told


def test_a_checkpoint_makes_the_same_artifact(
    folder: Path, tmp_path: Path, whole: tuple[JobResult, Collector], monkeypatch: pytest.MonkeyPatch
) -> None:
    result, reporter = whole
    (saved,) = reporter.checkpoints
    monkeypatch.setattr("worker.engine.pipeline.METHODS", {})  # no step may run again
    resumed = run(job(folder, tmp_path / "out", resume=saved), Collector())
    first = result.artifacts[0]
    assert resumed.artifacts[0].manifest["artifact"]["sha256"] == first.manifest["artifact"]["sha256"]
    assert resumed.metrics["steps"] == result.metrics["steps"]
    assert resumed.metrics["before"] == result.metrics["before"]


@pytest.mark.parametrize(("wrote", "kept"), [(0.001, 4), (0.3, 2), (5.0, 1)])
def test_checkpoints_within_a_step_take_little_of_its_time(
    wrote: float, kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]

    def save(compressed: Any, rows: Any, file: Path, *more: Any) -> None:
        now[0] += wrote
        file.touch()

    monkeypatch.setattr("worker.engine.pipeline.time.monotonic", lambda: now[0])
    monkeypatch.setattr("worker.engine.pipeline.checkpoint.save", save)
    reporter, network = Collector(), cast(Network, None)
    keep = _Keeper(Compressed(network), [], tmp_path, network, reporter)
    for epoch in range(4):
        keep(f"epoch {epoch}", Partial({}, {}))
        now[0] += 1.5
    assert len(reporter.checkpoints) == kept


def test_a_damaged_checkpoint_starts_over(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.zip").write_bytes(b"not a checkpoint")
    reporter = Collector()
    result = run(job(folder, tmp_path / "out", resume=tmp_path / "checkpoint.zip"), reporter)
    assert len(result.metrics["steps"]) == 1
    assert any(level == "warning" and "Starting over" in message for level, message in reporter.logs)


def test_labelled_calibration_set_is_split(folder: Path, tmp_path: Path) -> None:
    data = {"calibration": folder / "labelled.npz"}
    limits = Limits(max_metric_drop=0.5)
    result = run(job(folder, tmp_path / "out", data=data, limits=limits), Collector())
    after = result.metrics["artifacts"]["onnxruntime"]
    assert after["evaluation"]["samples"] == (1797 - HELD_OUT) // 5
    assert after["evaluation"]["source"] == "held back from calibration"
    assert any("held back" in note for note in result.metrics["notes"])


def test_without_labels_there_is_fidelity_and_no_metric(folder: Path, tmp_path: Path) -> None:
    data = {"calibration": folder / "calibration.npz"}
    result = run(job(folder, tmp_path / "out", data=data, limits=Limits(min_sqnr_db=10)), Collector())
    after = result.metrics["artifacts"]["onnxruntime"]
    assert "metric" not in after
    assert "metric_drop" not in after
    assert after["fidelity"]["sqnr_db"] > 10
    assert after["evaluation"]["samples"] == 40


def test_dynamic_without_any_data(folder: Path, tmp_path: Path) -> None:
    result = run(job(folder, tmp_path / "out", recipe=DYNAMIC, data={}), Collector())
    after = result.metrics["artifacts"]["onnxruntime"]
    assert not {"metric", "fidelity", "evaluation"} & set(after)
    assert after["latency_ms"]["p50"] > 0


def test_batch_of_one(folder: Path, tmp_path: Path, digits: tuple) -> None:
    images, labels = digits
    _save(_trained(images[:64], labels[:64]), tmp_path / "net.pt2", batch=1)
    result = run(job(folder, tmp_path / "out", model=tmp_path / "net.pt2"), Collector())
    after = result.metrics["artifacts"]["onnxruntime"]
    assert after["evaluation"]["samples"] == HELD_OUT
    assert after["fidelity"]["agreement"] > 0.9


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"limits": Limits(max_metric_drop=0.01), "data": {}, "recipe": DYNAMIC}, "labels_required"),
        ({"limits": Limits(min_sqnr_db=1), "data": {}, "recipe": DYNAMIC}, "evaluation_data_required"),
        ({"task": "regression"}, "labels_shape_mismatch"),
        ({"targets": ("abacus",)}, "target_unavailable"),
        ({"recipe": THEN_FINETUNED}, "training_required"),
        ({"recipe": THEN_FINETUNED, "data": {"training": "calibration.npz"}}, "labels_required"),
    ],
)
def test_what_cannot_be_measured_fails_before_any_work(
    folder: Path, tmp_path: Path, changes: dict[str, Any], code: str
) -> None:
    reporter = Collector()
    if "data" in changes:
        changes = {**changes, "data": {role: folder / name for role, name in changes["data"].items()}}
    with pytest.raises(UserError) as caught:
        run(job(folder, tmp_path / "out", **changes), reporter)
    assert caught.value.code == code
    assert {phase for phase, _ in reporter.progressed} <= {"reading"}


def test_a_broken_limit_leaves_artifacts_and_fails_the_gate(folder: Path, tmp_path: Path) -> None:
    result = run(job(folder, tmp_path / "out", limits=Limits(max_size_bytes=10)), Collector())
    assert not result.gate["passed"]
    assert result.artifacts[0].path.exists()
