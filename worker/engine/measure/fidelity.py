"""How close the outputs of an artifact are to those of the float model in the same runtime."""

from collections.abc import Sequence

import numpy as np

from worker.engine.data.samples import Array
from worker.engine.data.table import CHUNK_BYTES

#: Signal-to-noise ratios are told within these bounds: beyond them float32 says nothing, and JSON has no infinity.
MAX_DB, MIN_DB = 150.0, -150.0


def fidelity(baseline: Sequence[Array], artifact: Sequence[Array]) -> dict[str, float | None]:
    """Compare outputs on the same samples, one pass, a few MiB at a time.

    Args:
        baseline / artifact: one array (samples, ...) for each output.

    Returns:
        ``sqnr_db``: ``10 log10(sum of squared signal / sum of squared difference)``, of the worst floating output;
        150 where there is no difference. ``cosine``: mean over samples of the cosine of the first floating output.
        ``agreement``: share of samples with the same highest score, for a (samples, classes) first output. Each is
        None where the outputs do not have it.
    """
    pairs = [(one, other) for one, other in zip(baseline, artifact, strict=True) if one.dtype.kind == "f"]
    compared = [_compare(one, other) for one, other in pairs]
    scores = baseline[0]
    classes = scores.dtype.kind == "f" and scores.ndim == 2 and scores.shape[1] > 1
    return {
        "sqnr_db": min((sqnr for sqnr, _, _ in compared), default=None),
        "cosine": compared[0][1] if compared else None,
        "agreement": compared[0][2] if classes else None,
    }


def _compare(baseline: Array, artifact: Array) -> tuple[float, float, float]:
    """SQNR in dB, mean cosine, and share of samples with the same largest element."""
    samples = len(baseline)
    signal = noise = cosine = same = 0.0
    step = max(1, CHUNK_BYTES // max(1, baseline[:1].nbytes))
    for start in range(0, samples, step):
        one = np.asarray(baseline[start : start + step], np.float64).reshape(-1, baseline[0].size)
        other = np.asarray(artifact[start : start + step], np.float64).reshape(one.shape)
        with np.errstate(over="ignore", invalid="ignore"):
            signal += float(np.square(one).sum())
            noise += float(np.square(one - other).sum())
            lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
            products = (one * other).sum(axis=1) / np.where(lengths > 0, lengths, 1)
        cosine += float(np.where((one == other).all(axis=1), 1.0, products).sum())
        same += float((one.argmax(axis=1) == other.argmax(axis=1)).sum())
    return _decibels(signal, noise), _finite(cosine / samples), same / samples


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return MAX_DB
    if not np.isfinite(noise) or signal == 0:
        return MIN_DB
    return float(np.clip(10 * np.log10(signal / noise), MIN_DB, MAX_DB))


def _finite(value: float) -> float:
    return float(value) if np.isfinite(value) else 0.0
