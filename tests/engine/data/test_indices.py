"""Indices beyond an embedding are refused before anything runs on them."""

import numpy as np
import pytest
import torch
from torch import nn

from worker.engine.data.indices import require_indices
from worker.engine.data.samples import Samples
from worker.engine.data.split import Split
from worker.engine.errors import InvalidDataset
from worker.engine.formats.lift import network_of


class Tagger(nn.Module):
    """Looks up its tokens after a cast and a reshape, and adds what is no index."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 4)

    def forward(self, tokens: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        return self.words(tokens.to(torch.int64).reshape(-1, 3)).sum(1) + offset


@pytest.fixture(scope="module")
def network():
    return network_of(Tagger().eval(), (torch.zeros(2, 3, dtype=torch.int32), torch.zeros(2, 4)))


def samples(low, high):
    tokens = np.full((10, 3), 5, np.int32)
    tokens[7, 1], tokens[3, 0] = low, high
    return Samples({"tokens": tokens, "offset": np.full((10, 4), 99.0, np.float32)})


@pytest.mark.parametrize("role", ["calibration", "training", "evaluation"])
@pytest.mark.parametrize(("low", "high"), [(-1, 19), (0, 20)])
def test_beyond_the_table(network, role, low, high):
    with pytest.raises(InvalidDataset, match=rf"{role} dataset goes from {low} to {high}; layer 'words'.* 0 to 19"):
        require_indices(network, Split(**{role: samples(low, high)}))


def test_within_the_table(network):
    require_indices(network, Split(samples(0, 19), None, samples(0, 19)))
