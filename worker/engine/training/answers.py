"""A teacher's answers, computed once for all samples in place of once in every epoch.

Samples come in their own order and in batches of one size, whatever an epoch does with them: a training that goes on
after an interruption is told the same bits.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from worker.engine.data.samples import Array, Samples
from worker.engine.network import Network
from worker.engine.quantized.observe import batches
from worker.engine.training.losses import Outputs

_BATCH: Final = 64
#: Bytes of answers beyond which the teacher is asked in every epoch, and beyond which they wait on the disk.
_LARGEST, _IN_MEMORY = 4 << 30, 64 << 20


@torch.no_grad()
def answered(
    samples: Samples,
    network: Network,
    teacher: Callable[..., Outputs],
    folder: Path,
    *,
    device: str = "cpu",
    progress: Callable[[float], None] = lambda fraction: None,
) -> Samples:
    """`samples` with what `teacher` answers to each; as they are where that cannot be told apart or takes too much.

    Args:
        network: whose inputs and outputs the teacher has.
        folder: scratch folder.
    """
    if not network.batched or not all(spec.batched for spec in network.outputs):
        return samples
    arrays: list[Array] = []
    done = 0
    for inputs in batches(network, samples, _BATCH, device):
        results = [_array(value) for value in teacher(*inputs)]
        if not arrays:
            sizes = [result[0].nbytes * len(samples) for result in results]
            if any(len(result) != len(inputs[0]) for result in results) or sum(sizes) > _LARGEST:
                return samples
            arrays = [_room(result, len(samples), folder / f"answer-{at}.npy") for at, result in enumerate(results)]
        for array, result in zip(arrays, results, strict=True):
            if result.shape[1:] != array.shape[1:]:
                return samples
            array[done : done + len(result)] = result
        done += len(inputs[0])
        progress(done / len(samples))
    return replace(samples, answers=tuple(arrays))


def _array(value: Tensor) -> Array:
    """NumPy has no bfloat16."""
    found: Array = (value.float() if value.dtype == torch.bfloat16 else value).cpu().numpy()
    return found


def _room(result: Array, count: int, file: Path) -> Array:
    shape = (count, *result.shape[1:])
    if result[0].nbytes * count <= _IN_MEMORY:
        return np.empty(shape, result.dtype)
    kept: Array = open_memmap(file, mode="w+", dtype=result.dtype, shape=shape)
    return kept
