"""Which samples a job is judged on: the evaluation set, or a part held back that no step ever sees."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from worker.engine.data.samples import Array, Samples
from worker.engine.data.table import CHUNK_BYTES

#: One sample in this many is held back.
SHARE = 5


@dataclass(frozen=True)
class Split:
    """The samples of a job by their use.

    Attributes:
        calibration / training: what steps may see; None where not given.
        evaluation: what nothing but the measurement sees; None where no data was given at all.
        source: where `evaluation` comes from: ``evaluation``, ``training`` or ``calibration``; empty without.
    """

    calibration: Samples | None = None
    training: Samples | None = None
    evaluation: Samples | None = None
    source: str = ""


def split(given: Split, seed: int, folder: Path, *, same: bool = False) -> Split:
    """Hold a fifth back, unless an evaluation set was given.

    It is taken of the labelled training set, else of the labelled calibration set, else (for fidelity alone) of
    either without labels. The choice depends on the seed and the number of samples only.

    Args:
        given: as uploaded.
        seed: of the job.
        folder: scratch folder for the parts.
        same: whether calibration and training are the same file: both then lose the same samples.
    """
    if given.evaluation is not None:
        return replace(given, source="evaluation")
    candidates = [(name, getattr(given, name)) for name in ("training", "calibration")]
    candidates = [(name, samples) for name, samples in candidates if samples is not None]
    if not candidates:
        return given
    name, samples = next(((name, samples) for name, samples in candidates if samples.labels is not None), candidates[0])
    kept, held = indices(len(samples), seed)
    parts = {name: _part(samples, kept, folder / f"kept-{name}")}
    if same and len(candidates) == 2:
        parts = dict.fromkeys(("training", "calibration"), parts[name])
    return replace(given, **parts, evaluation=_part(samples, held, folder / "held"), source=name)


def indices(samples: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions that are kept and positions that are held back, each in ascending order."""
    order = np.random.default_rng(seed).permutation(samples)
    held = max(1, samples // SHARE)
    return np.sort(order[held:]), np.sort(order[:held])


def _part(samples: Samples, positions: NDArray[np.intp], folder: Path) -> Samples:
    """These samples in files of their own, copied a few MiB at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    inputs = {
        name: _copy(array, positions, folder / f"{index}.npy")
        for index, (name, array) in enumerate(samples.inputs.items())
    }
    more = {
        name: _copy(array, positions, folder / f"label-{index}.npy")
        for index, (name, array) in enumerate(samples.more.items())
    }
    labels = None if samples.labels is None else _copy(samples.labels, positions, folder / "label.npy")
    return Samples(inputs, labels, more)


def _copy(array: Array, positions: NDArray[np.intp], file: Path) -> Array:
    part = open_memmap(file, mode="w+", dtype=array.dtype, shape=(len(positions), *array.shape[1:]))
    step = max(1, CHUNK_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(positions), step):
        part[start : start + step] = array[positions[start : start + step]]
    part.flush()
    copy: Array = np.load(file, mmap_mode="r", allow_pickle=False)
    return copy
