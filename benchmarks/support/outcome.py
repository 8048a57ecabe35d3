"""What came of trials, as tables."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from scipy.special import log_softmax

from benchmarks.support import judge
from benchmarks.support.courses import Trial
from benchmarks.support.networks import Subject
from worker.engine.measure.stats import bootstrap, paired_difference

TARGET = "onnxruntime"
CONFIDENCE = 0.95
#: Which samples were right, or the mean negative log-likelihood of each.
SAMPLES = "samples.npy"
Row = dict[str, Any]


def judged(folder: Path, subject: Subject) -> Row:
    """Runs the artifact on the evaluation samples and keeps what it says of each; ``perplexity`` of words."""
    (artifact,) = (path for path in folder.glob("artifact.*") if path.suffix in (".onnx", judge.WEIGHTS))
    data = np.load(subject.evaluation)
    name = "input" if artifact.suffix == judge.WEIGHTS else onnx.load(artifact).graph.input[0].name
    outputs = judge.outputs(artifact, TARGET, data["input"], name)
    if outputs.ndim == 2:
        np.save(folder / SAMPLES, outputs.argmax(1) == data["label"])
        return {"folder": str(folder)}
    np.save(folder / SAMPLES, _surprise(outputs, data["label"]))
    floats = _surprise(judge.outputs(subject.onnx, TARGET, data["input"]), data["label"])
    surprise = np.load(folder / SAMPLES)
    return {"folder": str(folder), "perplexity": [math.exp(floats.mean()), math.exp(surprise.mean())]}


def _surprise(logits: Any, labels: Any) -> Any:
    """Mean negative log-likelihood of each piece of text, (samples,)."""
    return np.array(
        [
            -np.take_along_axis(log_softmax(one.astype(np.float64), -1), wanted[:, None], -1).mean()
            for one, wanted in zip(logits, labels, strict=True)
        ]
    )


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


def _zeros(row: Row) -> str:
    side = _sides(row)[1]
    share = 1 - side["nonzero_parameters"] / side["parameters"]
    return f"{100 * share:.1f}" if share > 0.01 else ""


def _search(row: Row) -> str:
    cost = next((note for note in row["metrics"]["notes"] if note.startswith("search cost ")), "")
    return cost.removeprefix("search cost ").partition(":")[0]


def _measured(cell: Callable[[Row], str]) -> Callable[[Row], str]:
    return lambda row: cell(row) if "metrics" in row else ""


#: Heading -> cell; empty columns are left out.
COLUMNS: dict[str, Callable[[Row], str]] = {
    "MACs /": _measured(_times("macs")),
    "parameters /": _measured(_times("parameters")),
    "zeros, %": _measured(_zeros),
    "file /": _measured(_times("size_bytes")),
    "accuracy, %": _measured(_accuracy),
    "drop, points [95 %]": _measured(_drop),
    "perplexity": lambda row: f"{row['perplexity'][1]:.2f}" if "perplexity" in row else "",
    "ms, float -> artifact": _measured(_speedup),
    "s": lambda row: f"{row['seconds']:.0f}",
    "cost of the search": _measured(_search),
}


def render(title: str, trials: Sequence[Trial], rows: Mapping[str, Row]) -> str:
    """One stage as Markdown, and who has no row and why."""
    done = [trial for trial in trials if "folder" in rows[trial.label]]
    lines = [f"\n### {title}\n"]
    for network in dict.fromkeys(trial.network for trial in done):
        lines += _table([trial for trial in done if trial.network == network], rows)
    lines += [line for trial in done if (line := _against(trial, rows))]
    lines += [f"- {trial.label}: {rows[trial.label].get('error')}" for trial in trials if trial not in done]
    return "\n".join(lines)


def _table(trials: Sequence[Trial], rows: Mapping[str, Row]) -> list[str]:
    first = rows[trials[0].label]
    before = _sides(first)[0]
    told = f"perplexity {first['perplexity'][0]:.2f}" if "perplexity" in first else ""
    if before.get("metric"):
        told = f"accuracy {100 * before['metric']['value']:.2f} %"
    commits = ", ".join(sorted({rows[trial.label]["commit"] for trial in trials}))
    lines = [f"{trials[0].network}, float: {told}, {before['size_bytes'] / 1e6:.2f} MB (at {commits}).", ""]
    cells = {name: [cell(rows[trial.label]) for trial in trials] for name, cell in COLUMNS.items()}
    names = [name for name in COLUMNS if any(cells[name])]
    lines.append("| | " + " | ".join(names) + " |")
    lines.append("|---" * (len(names) + 1) + "|")
    lines += [
        f"| {trial.label} | " + " | ".join(cells[name][index] for name in names) + " |"
        for index, trial in enumerate(trials)
    ]
    return [*lines, ""]


def _against(trial: Trial, rows: Mapping[str, Row]) -> str:
    """How much better it is than the trial that it is compared with, with the paired 95 % interval."""
    other = rows.get(trial.against, {})
    if "folder" not in other:
        return ""
    mine, theirs = (np.load(Path(row["folder"]) / SAMPLES) for row in (rows[trial.label], other))
    if mine.dtype != np.bool_:
        ratio = math.exp(mine.mean() - theirs.mean())
        low, high = bootstrap(np.stack([mine - theirs], 1), lambda means: np.exp(means[:, 0]), CONFIDENCE)
        return f"- {trial.label}: {ratio:.3f} [{low:.3f}, {high:.3f}] times the perplexity of {trial.against}."
    won, lost = int((mine & ~theirs).sum()), int((~mine & theirs).sum())
    low, high = (-100 * end for end in paired_difference(lost, won, len(mine), CONFIDENCE))
    points = 100 * (won - lost) / len(mine)
    return f"- {trial.label}: {points:+.2f} points [{high:.2f}, {low:.2f}] against {trial.against}."
