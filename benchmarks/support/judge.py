"""Judges quantized files in their runtimes: fidelity, accuracy, latency."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from worker.engine.measure.stats import paired_difference
from worker.engine.runtimes import SESSIONS, Session

THREADS = 2
#: What a contestant without a file leaves: the logits of the held-out images.
LOGITS = ".npy"
_BATCH = 64


def outputs(path: Path, target: str, images: Any) -> Any:
    """Logits (images, classes); float parts are computed in float32, whatever the CPU has."""
    if path.suffix == LOGITS:
        return np.load(path)
    session = SESSIONS[target](path, THREADS, True)
    batches = [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]
    return np.concatenate([session.run({"input": batch})[0] for batch in batches])


def score(logits: Any, floats: Any, labels: Any | None) -> dict[str, float]:
    """``sqnr_db`` of the logits; with labels ``drop``, in points, and the ends of its paired 95 % interval."""
    noise = np.square(logits - floats, dtype=np.float64).sum()
    found = {"sqnr_db": float(10 * np.log10(np.square(floats, dtype=np.float64).sum() / max(noise, 1e-30)))}
    if labels is not None:
        before, after = floats.argmax(1) == labels, logits.argmax(1) == labels
        lost, won = int((before & ~after).sum()), int((~before & after).sum())
        low, high = (100 * end for end in paired_difference(lost, won, len(labels), 0.95))
        found |= {"drop": 100 * (lost - won) / len(labels), "low": low, "high": high}
    return found


def latencies(paths: Mapping[str, Path], target: str, image: Any, rounds: int = 8, runs: int = 10) -> dict[str, float]:
    """Median milliseconds of one image, all files taking turns so that noise hits all alike.

    A turn is several runs after a rest: the threads of the session before still spin for a moment, and the first run
    finds the caches full of another model's weights.
    """
    sessions: dict[str, Session] = {name: SESSIONS[target](path, THREADS, False) for name, path in paths.items()}
    times: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(rounds):
        for name, session in sessions.items():
            time.sleep(0.01)
            taken = []
            for _ in range(runs + 2):
                started = time.perf_counter()
                session.run({"input": image})
                taken.append(1000 * (time.perf_counter() - started))
            times[name] += taken[2:]
    return {name: float(np.median(values)) for name, values in times.items()}
