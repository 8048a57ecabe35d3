"""Measures one target: the float model and the artifact, each as the exported file in its runtime."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from worker.engine.data.samples import Array, Samples
from worker.engine.errors import RuntimeFailure
from worker.engine.measure.accuracy import METRICS, Score
from worker.engine.measure.fidelity import fidelity
from worker.engine.measure.gate import Measured
from worker.engine.measure.latency import BATCH, alternate
from worker.engine.measure.remote import Remote
from worker.engine.state import Reporter

#: Samples run together when outputs are collected, and the most bytes of input that they may have.
_BATCH, _BATCH_BYTES = 64, 64 * 1024**2
#: Processors on which OpenVINO computes float models in less than float32 unless told otherwise.
_HALF = ("amx_bf16", "avx512_bf16")


@dataclass(frozen=True)
class Setup:
    """What all measurements of a job have in common.

    Attributes:
        samples: what the files are run on; None: only `probe`, and no outputs are compared.
        probe: at least one sample for the times.
        task: ``classification`` or ``regression`` where `samples` has labels, else None.
        evaluation: ``{"dataset_id", "samples", ...}`` as the metrics show it.
        batched: whether samples can be run together.
        cpu_flags: of this machine.
    """

    samples: Samples | None
    probe: Samples
    task: str | None
    evaluation: dict[str, Any]
    batched: bool
    threads: int
    folder: Path
    cpu_flags: frozenset[str] = frozenset()


@dataclass
class Side:
    """The float model or the artifact of one target.

    Attributes:
        path: the exported file.
        facts: ``parameters``, ``nonzero_parameters`` and ``macs``.
    """

    path: Path
    facts: dict[str, Any]
    figures: dict[str, Any] = field(default_factory=dict)
    scores: tuple[Score, ...] = ()


def compare(
    target: str, baseline: Side, artifact: Side, setup: Setup, reporter: Reporter, progress: Callable[[float], None]
) -> tuple[Measured, list[str]]:
    """The figures of both sides, and what the user should know about them.

    Args:
        progress: told how much of this target is done, 0..1.

    Raises:
        RuntimeFailure: a file that its runtime cannot run.
    """
    sides = (baseline, artifact)
    with _open(target, sides, setup) as remotes:
        batch = BATCH if setup.batched and len(setup.probe) >= BATCH else 1
        with reporter.measuring():
            times = alternate(remotes, batch=batch)
        progress(0.4)
        for side, remote, taken in zip(sides, remotes, times, strict=True):
            side.figures = {
                "size_bytes": side.path.stat().st_size,
                **side.facts,
                **taken.to_json(),
                "peak_memory_bytes": remote.peak_memory(),
                "threads": setup.threads,
            }
        if setup.samples is not None:
            _outputs(remotes, sides, setup.samples, setup, progress)
        progress(0.9)
        if target == "openvino" and setup.cpu_flags.intersection(_HALF):
            _exact(remotes, sides, setup, reporter)
    return _judged(target, baseline, artifact)


@contextmanager
def _open(target: str, sides: tuple[Side, Side], setup: Setup) -> Iterator[tuple[Remote, Remote]]:
    folders = setup.folder / target / "baseline", setup.folder / target / "artifact"
    with (
        Remote(target, sides[0].path, setup.threads, folders[0]) as one,
        Remote(target, sides[1].path, setup.threads, folders[1]) as other,
    ):
        for remote in (one, other):
            remote.load((setup.samples or setup.probe).inputs)
        yield one, other


def _outputs(
    remotes: tuple[Remote, Remote],
    sides: tuple[Side, Side],
    samples: Samples,
    setup: Setup,
    progress: Callable[[float], None],
) -> None:
    """Run both on all samples; fills in the metric and the fidelity."""
    before = _run(remotes[0], setup, samples, lambda ran: progress(0.4 + 0.25 * ran / len(samples)))
    after = _run(remotes[1], setup, samples, lambda ran: progress(0.65 + 0.25 * ran / len(samples)))
    if [output.shape for output in before] != [output.shape for output in after]:
        raise RuntimeFailure("runtime_failed", "The artifact's outputs have other shapes than the float model's.")
    for side, outputs in zip(sides, (before, after), strict=True):
        side.figures["evaluation"] = setup.evaluation
        if setup.task is not None and samples.labels is not None:
            side.scores = METRICS[setup.task](outputs[0], samples.labels)
            side.figures["metric"] = _metric(side.scores[0])
            if side.scores[1:]:
                side.figures["secondary_metrics"] = [_metric(score) for score in side.scores[1:]]
    sides[1].figures["fidelity"] = fidelity(before, after)


def _run(remote: Remote, setup: Setup, samples: Samples, progress: Callable[[int], None]) -> list[Array]:
    row = sum(array[:1].nbytes for array in samples.inputs.values())
    batch = max(1, min(_BATCH, _BATCH_BYTES // max(1, row))) if setup.batched else 1
    return remote.run(batch, progress)


def _exact(remotes: tuple[Remote, Remote], sides: tuple[Side, Side], setup: Setup, reporter: Reporter) -> None:
    """Once more with float32 arithmetic: fidelity is of the arithmetic asked for, and latency is told of both."""
    for remote in remotes:
        remote.open(exact=True)
    with reporter.measuring():
        times = alternate(remotes, batch=1, rounds=3)
    for side, taken in zip(sides, times, strict=True):
        side.figures["latency_float32_ms"] = taken.to_json()["latency_ms"]
    if setup.samples is not None:
        before, after = (_run(remote, setup, setup.samples, lambda ran: None) for remote in remotes)
        sides[1].figures["fidelity"] = fidelity(before, after)


def _metric(score: Score) -> dict[str, Any]:
    return {"name": score.name, "value": score.value, "ci95": list(score.interval(0.95))}


def _judged(target: str, baseline: Side, artifact: Side) -> tuple[Measured, list[str]]:
    """What the gate sees, and the sentences that a user should not have to work out from the figures."""
    drop = artifact.scores[0].drop_from(baseline.scores[0]) if artifact.scores else None
    if drop is not None:
        artifact.figures["metric_drop"] = drop.to_json()
    notes = []
    before, after = (side.figures["latency_ms"]["p50"] for side in (baseline, artifact))
    if after > before:
        notes.append(f"{target}: the artifact is slower than the float model ({after:.3g} ms against {before:.3g} ms).")
    before, after = (side.figures["size_bytes"] for side in (baseline, artifact))
    if after >= before:
        notes.append(f"{target}: the artifact is not smaller than the float model ({after} against {before} bytes).")
    parameters, nonzero = artifact.facts["parameters"], artifact.facts["nonzero_parameters"]
    if parameters and nonzero < 0.9 * parameters:
        share = 1 - nonzero / parameters
        notes.append(f"{target}: {share:.0%} of the parameters are zero and are stored and computed like any other.")
    artifact.figures["notes"] = notes
    return Measured(baseline.figures, artifact.figures, drop), notes


def probe_of(samples: Samples) -> Samples:
    """The first few samples, in memory."""
    return samples.take(np.arange(min(len(samples), BATCH)))
