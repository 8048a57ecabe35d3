"""Judges quantized files in their runtimes: fidelity, accuracy, latency."""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.support import language
from worker.engine.measure.stats import paired_difference
from worker.engine.runtimes import SESSIONS, Session

THREADS = 2
#: What contestants without a file leave: the logits of the held-out samples, or the language model's weights in float.
LOGITS, WEIGHTS = ".npy", ".npz"
_BATCH = 64


def outputs(path: Path, target: str, inputs: Any, name: str = "input") -> Any:
    """Logits (samples, ..., classes) for `inputs` under `name`; float parts are computed in float32, whatever the CPU
    has."""
    if path.suffix == LOGITS:
        return np.load(path)
    batches = [inputs[start : start + _BATCH] for start in range(0, len(inputs), _BATCH)]
    if path.suffix == WEIGHTS:
        run = language.runner(path)
    else:
        session = SESSIONS[target](path, THREADS, True)
        run = lambda batch: session.run({name: batch})[0]  # noqa: E731 (one name for both)
    return np.concatenate([run(batch) for batch in batches])


def base(floats: Any, labels: Any | None) -> dict[str, float]:
    """``accuracy`` in percent of the float network, or ``perplexity`` where every token has a label."""
    if labels is None:
        return {}
    if floats.ndim > 2:
        return {"perplexity": _perplexity(floats, labels)}
    return {"accuracy": 100 * float((floats.argmax(1) == labels).mean())}


def score(logits: Any, floats: Any, labels: Any | None) -> dict[str, float]:
    """``sqnr_db`` of the logits; with labels ``drop``, in points, and the ends of its paired 95 % interval, or
    ``perplexity``."""
    noise = sum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in zip(logits, floats, strict=True))
    signal = sum(float(np.square(a, dtype=np.float64).sum()) for a in floats)
    found = {"sqnr_db": 10 * math.log10(signal / max(noise, 1e-30))}
    if labels is None:
        return found
    if floats.ndim > 2:
        return found | {"perplexity": _perplexity(logits, labels)}
    before, after = floats.argmax(1) == labels, logits.argmax(1) == labels
    lost, won = int((before & ~after).sum()), int((~before & after).sum())
    low, high = (100 * end for end in paired_difference(lost, won, len(labels), 0.95))
    return found | {"drop": 100 * (lost - won) / len(labels), "low": low, "high": high}


def _perplexity(logits: Any, labels: Any) -> float:
    """exp of the mean negative logarithm of the probabilities of `labels` (samples, tokens)."""
    parts = [
        nn.functional.cross_entropy(torch.from_numpy(one), torch.from_numpy(wanted), reduction="sum")
        for one, wanted in zip(logits, labels, strict=True)
    ]
    return math.exp(sum(map(float, parts)) / labels.size)


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
