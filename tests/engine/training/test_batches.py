"""Batches: every sample once, by seed and epoch, never a tiny one."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support.quantizable import build
from worker.engine.data.samples import Samples
from worker.engine.errors import InvalidDataset
from worker.engine.network import Network
from worker.engine.training.batches import Batches


def numbered(count: int) -> Samples:
    """Samples of `signal` that start with their own number, which is their label too."""
    array = np.zeros((count, 2, 40), np.float32)
    array[:, 0, 0] = np.arange(count)
    return Samples({build("signal").inputs[0].name: array}, np.arange(count))


def fixed(size: int) -> Network:
    network = build("signal")
    return replace(network, inputs=(replace(network.inputs[0], shape=(size, 2, 40)),))


def test_every_sample_once_in_batches_of_nearly_equal_size() -> None:
    batches = Batches(build("signal"), numbered(65), size=32, seed=0)
    parts = [part for parts in batches.epoch(0) for part in parts]
    assert len(batches) == len(parts) == 3
    assert sorted(len(part) for part in parts) == [21, 22, 22]
    labels = torch.cat([part.labels for part in parts if part.labels is not None])
    assert sorted(labels.tolist()) == list(range(65))
    assert labels.dtype == torch.int64
    for part in parts:
        assert part.labels is not None
        torch.testing.assert_close(part.inputs[0][:, 0, 0].long(), part.labels)


def test_seed_and_epoch_decide_the_order() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        batches = Batches(build("signal"), numbered(40), size=8, seed=seed).epoch(epoch)
        return [int(x) for parts in batches for part in parts for x in part.inputs[0][:, 0, 0]]

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


def test_a_fixed_batch_runs_in_parts_whose_shares_add_up() -> None:
    batches = Batches(fixed(4), numbered(31), size=8, seed=0)
    steps = list(batches.epoch(0))
    assert [len(parts) for parts in steps] == [2, 2, 2, 1]
    assert all(len(part) == 4 for parts in steps for part in parts)
    assert all(sum(part.share for part in parts) == pytest.approx(1) for parts in steps)


@pytest.mark.parametrize(("network", "size", "enough"), [("free", 8, True), ("free", 4, False), ("fixed", 64, False)])
def test_statistics_need_a_few_samples_at_a_time(network: str, size: int, enough: bool) -> None:
    chosen = build("signal") if network == "free" else fixed(1)
    assert Batches(chosen, numbered(64), size=size, seed=0).statistics is enough


def test_too_few_samples_for_a_fixed_batch() -> None:
    with pytest.raises(InvalidDataset) as caught:
        Batches(fixed(4), numbered(3), size=8, seed=0)
    assert caught.value.code == "too_few_samples"
