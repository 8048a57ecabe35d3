"""What came of trials, as tables."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.support import judge
from benchmarks.support.courses import Trial
from benchmarks.support.networks import Subject

TARGET = "onnxruntime"
Row = dict[str, Any]


def perplexities(folder: Path, subject: Subject) -> list[float]:
    """Of the float file and of the artifact."""
    data = np.load(subject.evaluation)
    files = (subject.onnx, folder / "artifact.onnx")
    return [judge.base(judge.outputs(path, TARGET, data["input"]), data["label"])["perplexity"] for path in files]


def _sides(row: Row) -> tuple[Row, Row]:
    metrics = row["metrics"]
    return metrics["baseline"][TARGET], metrics["artifacts"][TARGET]


def _times(key: str) -> Callable[[Row], str]:
    """How many times less of it there is."""

    def cell(row: Row) -> str:
        before, after = _sides(row)
        return f"{before[key] / after[key]:.2f}" if after.get(key) else ""

    return cell


def _speedup(row: Row) -> str:
    before, after = (side["latency_ms"]["p50"] for side in _sides(row))
    return f"{before:.2f} -> {after:.2f} = {before / after:.2f}"


def _accuracy(row: Row) -> str:
    after = _sides(row)[1].get("metric")
    return "" if after is None else f"{100 * after['value']:.2f}"


def _drop(row: Row) -> str:
    drop = _sides(row)[1].get("metric_drop")
    if drop is None:
        return ""
    low, high = (100 * end for end in drop["ci95"])
    return f"{100 * drop['value']:.2f} [{low:.2f}, {high:.2f}]"


def _perplexity(row: Row) -> str:
    return f"{row['perplexity'][1]:.2f}" if "perplexity" in row else ""


def _zeros(row: Row) -> str:
    side = _sides(row)[1]
    share = 1 - side["nonzero_parameters"] / side["parameters"]
    return f"{100 * share:.1f}" if share > 0.01 else ""


def _search(row: Row) -> str:
    return next((note for note in row["metrics"]["notes"] if "epochs" in note and "search" in note), "")


#: Heading -> cell; empty columns are left out.
COLUMNS: dict[str, Callable[[Row], str]] = {
    "MACs /": _times("macs"),
    "parameters /": _times("parameters"),
    "zeros, %": _zeros,
    "file /": _times("size_bytes"),
    "accuracy, %": _accuracy,
    "drop, points [95 %]": _drop,
    "perplexity": _perplexity,
    "ms": _speedup,
    "s": lambda row: f"{row['seconds']:.0f}",
    "search": _search,
}


def render(title: str, trials: Sequence[Trial], rows: Mapping[str, Row]) -> str:
    """One stage as Markdown, and who has no row and why."""
    done = [trial for trial in trials if "metrics" in rows[trial.label]]
    lines = [f"\n### {title}\n"]
    if done:
        before = _sides(rows[done[0].label])[0]
        metric = before.get("metric")
        float_ = f"accuracy {100 * metric['value']:.2f} %" if metric else ""
        if "perplexity" in rows[done[0].label]:
            float_ = f"perplexity {rows[done[0].label]['perplexity'][0]:.2f}"
        lines += [f"{done[0].network}, float: {float_}, {before['size_bytes'] / 1e6:.2f} MB.", ""]
        cells = {name: [cell(rows[trial.label]) for trial in done] for name, cell in COLUMNS.items()}
        names = [name for name in COLUMNS if any(cells[name])]
        lines.append("| | " + " | ".join(names) + " |")
        lines.append("|---" * (len(names) + 1) + "|")
        lines += [
            f"| {trial.label} | " + " | ".join(cells[name][index] for name in names) + " |"
            for index, trial in enumerate(done)
        ]
        lines.append("")
    lines += [_against(trial, rows) for trial in done if trial.against in rows]
    failed = [trial for trial in trials if "metrics" not in rows[trial.label]]
    lines += [f"- {trial.label}: {rows[trial.label].get('error')}" for trial in failed]
    return "\n".join(line for line in lines if line is not None)


def _against(trial: Trial, rows: Mapping[str, Row]) -> str:
    """How many points it is better than the trial that it is compared with."""
    other = rows[trial.against]
    if "metrics" not in other:
        return ""
    mine, theirs = (100 * _sides(row)[1]["metric"]["value"] for row in (rows[trial.label], other))
    return f"- {trial.label}: {mine - theirs:+.2f} points against {trial.against}."
