"""A teacher's answers, asked once."""

from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from tests.support.quantizable import build, samples
from worker.engine.training import answers
from worker.engine.training.answers import answered
from worker.engine.training.batches import Batches


def test_every_sample_brings_its_answers_wherever_it_goes(tmp_path: Path) -> None:
    network = build("branches")
    told = answered(samples(network, 150), network, network.module, tmp_path)
    assert [len(array) for array in told.answers] == [150, 150]
    for parts in Batches(network, told, size=32, seed=3).epoch(1):
        (batch,) = parts
        for one, other in zip(batch.answers, network.module(*batch.inputs), strict=True):
            torch.testing.assert_close(one, other.detach())


def test_large_ones_wait_on_the_disk_and_too_large_ones_are_not_kept(tmp_path: Path) -> None:
    network = build("branches")
    data = samples(network, 70)
    whole = answered(data, network, network.module, tmp_path)
    with patch.object(answers, "_IN_MEMORY", 0):
        mapped = answered(data, network, network.module, tmp_path)
    assert all(isinstance(array, np.memmap) for array in mapped.answers)
    for one, other in zip(whole.answers, mapped.answers, strict=True):
        np.testing.assert_array_equal(one, other)
    with patch.object(answers, "_LARGEST", 1000):
        assert answered(data, network, network.module, tmp_path).answers == ()
