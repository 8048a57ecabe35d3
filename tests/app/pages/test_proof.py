"""What a job has proved, as its page shows it."""

from typing import Any

from app.jobs.schemas import JobView
from app.pages import proof
from app.pages.snippets import snippet


def job(metrics: dict[str, Any], targets: tuple[str, ...] = ("onnxruntime",)) -> JobView:
    return JobView.model_construct(metrics=metrics, targets=list(targets))


BEFORE = {"size_bytes": 1000, "latency_ms": {"p50": 2.0}, "metric": {"name": "accuracy", "value": 0.98}, "macs": 100}
AFTER = {
    "size_bytes": 250,
    "latency_ms": {"p50": 1.0, "p90": 1.5},
    "metric": {"name": "accuracy", "value": 0.97, "ci95": [0.95, 0.985]},
    "metric_drop": {"value": 0.01, "unit": "fraction"},
    "fidelity": {"sqnr_db": 31.27, "agreement": 0.995},
    "macs": 100,
    "evaluation": {"samples": 719, "source": "evaluation"},
    "notes": ["slower"],
}


def test_before_and_after() -> None:
    (found,) = proof.proofs(job({"baseline": {"onnxruntime": BEFORE}, "artifacts": {"onnxruntime": AFTER}}))
    size, metric, latency = found.main
    assert (size.before, size.after, size.change, size.better) == ("1 kB", "250 B", "25.0 % of the float file", True)
    assert (metric.after, metric.change, metric.better) == ("97.00 %", "1.00 points worse", False)
    assert metric.interval == "95 %: 95.00 % to 98.50 %"
    assert (latency.after, latency.change) == ("1 ms", "2.00 × as fast")
    rest = {figure.name: figure.after for figure in found.rest}
    assert rest["SQNR"] == "31.3 dB"
    assert rest["Agreement"] == "99.50 %"
    assert found.evaluation == "719 samples, evaluation"
    assert found.notes == ["slower"]


def test_without_labels_the_likeness_stands_in_for_the_metric() -> None:
    after = {"size_bytes": 1, "fidelity": {"sqnr_db": 20.0}}
    (found,) = proof.proofs(job({"baseline": {}, "artifacts": {"onnxruntime": after}}))
    assert [figure.name for figure in found.main] == ["Size", "SQNR"]


def test_figures_of_a_wrong_kind_are_left_out() -> None:
    odd = {"size_bytes": "large", "metric": [1], "latency_ms": 3, "fidelity": None, "notes": {"a": 1}}
    (found,) = proof.proofs(job({"baseline": {"onnxruntime": odd}, "artifacts": {"onnxruntime": odd}}))
    assert not found.main
    assert not found.notes
    assert proof.proofs(job({"artifacts": []})) == []
    assert proof.checks({"checks": "none"}) == []
    assert proof.steps({"steps": [1], "before": 2}) == ([], [])
    assert proof.layers(None) == ([], [])


def test_broken_limits_come_first() -> None:
    rows = [
        {"target": "torch", "limit": "max_size_ratio", "allowed": 0.5, "measured": 0.25, "passed": True},
        {"target": "torch", "limit": "max_metric_drop", "allowed": 0.01, "measured": 0.02, "ci95": [0, 0.03]},
        {"target": "torch", "limit": "max_later", "allowed": 3, "measured": None},
    ]
    first, second, last = proof.checks({"checks": rows})
    assert (first.name, first.measured, first.interval) == ("Drop of the metric, at most", "2.00 %", "0.00 % to 3.00 %")
    assert (second.name, second.allowed, second.measured) == ("max_later", "3", "–")
    assert (last.measured, last.passed) == ("25.0 %", True)


def test_tables_have_the_columns_that_there_are() -> None:
    head, rows = proof.layers({"layers": [{"name": "a", "bits": 8, "share": 0.5}, {"name": "b", "ranks": [4, 2]}]})
    assert head == ["Bits", "Share of size", "Ranks"]
    assert [list(row.cells) for row in rows] == [["8", "50.0 %", "–"], ["–", "–", "4 × 2"]]
    before = {"size_bytes": 10, "macs": 5, "metric": {"name": "accuracy", "value": 0.5}}
    head, rows = proof.steps({"before": before, "steps": [{**before, "method": "finetune", "seconds": 2}]})
    assert head == ["Time", "Weights", "MACs", "accuracy", "SQNR"]
    assert [row.name for row in rows] == ["as uploaded", "finetune"]


def test_snippets_name_the_inputs() -> None:
    facts = {
        "inputs": [{"name": "image", "dtype": "float32", "shape": ["batch", 1, 8, 8]}, {"name": "a b", "shape": []}]
    }
    code = snippet("onnxruntime", "digits.onnx", facts)
    assert code is not None
    assert "# image: numpy float32 [batch, 1, 8, 8]" in code
    assert "{'image': image, 'a b': a_b}" in code
    for target in ("openvino", "torch", "executorch", "litert", "tensorrt"):
        compile(snippet(target, "it's.zip", facts) or "", target, "exec")
    assert snippet("gguf", "x.gguf", None) is None
