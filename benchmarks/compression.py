"""Pruning, factorizing, distillation, search and pipelines of them: ``python benchmarks/compression.py [--stage A,B]``.

Every trial is a job of the engine on a network that was trained on glyphs (`networks`): what it says of accuracy, size
and time was measured on the exported file in ONNX Runtime, beside the float model's. Everything is kept under the cache
folder: a second start goes on where the first was stopped, within a training too, and prints at once what is there.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.support import courses, environments, judge, networks, outcome  # noqa: E402
from benchmarks.support.courses import Trial  # noqa: E402
from benchmarks.support.networks import Subject  # noqa: E402

TARGET = "onnxruntime"
_TICK_S = 10.0


def data_of(trial: Trial, subject: Subject) -> dict[str, str]:
    """Role -> file."""
    # A token after each token is no label that a job knows: its perplexity is taken here (`outcome.judged`).
    held = _unlabelled(subject.evaluation) if trial.network == networks.LANGUAGE else subject.evaluation
    files = {"evaluation": held, "calibration": subject.calibration}
    if trial.training and subject.training is not None:
        files["training"] = subject.training if trial.labels else _unlabelled(subject.training)
    return {role: str(path) for role, path in files.items()}


def _unlabelled(path: Path) -> Path:
    bare = path.with_name(f"{path.stem}-unlabelled.npz")
    if not bare.exists():
        np.savez(bare.with_suffix(".part.npz"), input=np.load(path)["input"])
        bare.with_suffix(".part.npz").rename(bare)
    return bare


def run(trial: Trial, cache: Path, *, fresh: bool) -> dict[str, Any]:
    """What came of the trial, from its file where it was run before with the same settings."""
    subject = networks.subject(trial.network, cache, judge.THREADS)
    folder = cache / "compression" / subject.folder.name / trial.name
    folder.mkdir(parents=True, exist_ok=True)
    record, settings = folder / "record.json", {"steps": list(trial.steps), "peer": trial.peer, "labels": trial.labels}
    known = json.loads(record.read_text()) if record.exists() else {}
    if fresh or known.get("settings") != settings:
        for old in folder.iterdir():
            if old.is_file():
                old.unlink()
        known = {"settings": settings, "seconds": 0.0}
    if "commit" in known and "error" not in known:
        return known
    order = {
        "model": str(subject.pt2),
        "steps": trial.steps,
        "data": data_of(trial, subject),
        "target": TARGET,
        "output": str(folder),
        "threads": judge.THREADS,
        **({} if trial.network == networks.LANGUAGE else {"task": "classification"}),
    }
    started, before = time.monotonic(), known["seconds"]

    def keep(**more: Any) -> None:
        """Also of an attempt that is stopped, the time counts."""
        known.update(more, seconds=before + time.monotonic() - started)
        record.write_text(json.dumps(known))

    keep()
    if trial.peer and trial.steps:
        if not (folder / "peer.pt2").exists():
            keep(made=_peer(trial, subject, folder / "peer.pt2", cache))
        order["models"] = {"peer": str(folder / "peer.pt2")}
    if trial.steps:
        found = _child([sys.executable, "-m", "benchmarks.support.trial"], order, keep)
    else:
        command = environments.command("modelopt", cache, "benchmarks.support.sparse_peer")
        told = {"model": str(subject.pt2), "calibration": str(subject.calibration), "threads": judge.THREADS}
        found = _child(command, {**told, "result": str(folder / "artifact.npz")}, keep)
    if "error" not in found:
        found |= outcome.judged(folder, subject)
    keep(commit=_commit(), **found)
    return known


def _peer(trial: Trial, subject: Subject, result: Path, cache: Path) -> dict[str, Any]:
    state = subject.folder / networks.STATE
    order = {"network": trial.network, "state": str(state), "result": str(result), **trial.peer}
    return _child(environments.command("torch-pruning", cache), order, lambda: None)


def _child(command: list[str], order: dict[str, Any], tick: Callable[[], None]) -> dict[str, Any]:
    """What a program prints last; `tick` is called every now and then."""
    surroundings = {**os.environ, "GOMP_SPINCOUNT": "10000", "OMP_NUM_THREADS": str(judge.THREADS)}
    surroundings["PYTHONPATH"] = str(ROOT)
    with subprocess.Popen(
        [*command, json.dumps(order)], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=surroundings
    ) as child:
        while True:
            try:
                output, _ = child.communicate(timeout=_TICK_S)
                break
            except subprocess.TimeoutExpired:
                tick()
    lines = output.strip().splitlines()
    if child.returncode or not lines:
        return {"error": f"exit status {child.returncode}"}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--stage", default=",".join(courses.TITLES), help="letters, such as A,C (all)")
    parser.add_argument("--network", default="resnet18", help="in place of resnet18, such as resnet18-quarter")
    parser.add_argument("--epochs", type=int, default=courses.EPOCHS, help="of each training, at most")
    parser.add_argument("--fresh", action="store_true", help="forget the results of earlier runs")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench", help="where everything is kept")
    options = parser.parse_args()
    wanted = options.stage.upper().split(",")
    tables = []
    for stage in (letter for letter in courses.TITLES if letter in wanted):
        rows: dict[str, dict[str, Any]] = {}
        chosen = [trial for trial in courses.trials(options.network, options.epochs) if trial.stage == stage]
        for trial in chosen:
            print(f"{stage}: {trial.network}, {trial.label} ...", flush=True)
            rows[trial.label] = run(trial, options.cache.resolve(), fresh=options.fresh)
        tables.append(outcome.render(courses.TITLES[stage], chosen, rows))
        print(tables[-1], flush=True)
    print("\n".join(["", "# All", *tables]))


if __name__ == "__main__":
    main()
