"""Judges quantized ONNX files in ONNX Runtime: fidelity, accuracy, size, latency. Needs no torch."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from worker.engine.measure.stats import paired_difference

THREADS = 2


@dataclass(frozen=True)
class Score:
    """How a file compares with the float one on held-out data.

    Attributes:
        sqnr_db: of the logits.
        drop / low / high: accuracy lost in points and its paired 95 % interval; NaN without labels.
    """

    size: int
    sqnr_db: float
    drop: float
    low: float
    high: float


def session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def outputs(path: Path, images: Any) -> Any:
    run = session(path)
    return np.concatenate([run.run(None, {"input": images[i : i + 64]})[0] for i in range(0, len(images), 64)])


def score(path: Path, floats: Any, images: Any, labels: Any | None) -> Score:
    logits = outputs(path, images)
    noise = np.square(logits - floats, dtype=np.float64).sum()
    sqnr = 10 * np.log10(np.square(floats, dtype=np.float64).sum() / noise)
    drop, low, high = (float("nan"),) * 3
    if labels is not None:
        before, after = floats.argmax(1) == labels, logits.argmax(1) == labels
        lost, won = int((before & ~after).sum()), int((~before & after).sum())
        drop = 100 * (lost - won) / len(labels)
        low, high = (100 * end for end in paired_difference(lost, won, len(labels), 0.95))
    return Score(path.stat().st_size, float(sqnr), drop, low, high)


def latencies(paths: dict[str, Path], image: Any, rounds: int = 8, runs: int = 10) -> dict[str, float]:
    """Median milliseconds of one image, all files taking turns so that noise hits all alike.

    A turn is several runs after a rest: the threads of the session before still spin for a moment, and the first run
    finds the caches full of another model's weights.
    """
    sessions = {name: session(path) for name, path in paths.items()}
    times: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(rounds):
        for name, run in sessions.items():
            time.sleep(0.01)
            taken = []
            for _ in range(runs + 2):
                started = time.perf_counter()
                run.run(None, {"input": image})
                taken.append(1000 * (time.perf_counter() - started))
            times[name] += taken[2:]
    return {name: float(np.median(values)) for name, values in times.items()}
