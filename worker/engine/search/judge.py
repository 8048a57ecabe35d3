"""How good a candidate is: its own network, with batch norms of its own, on held-back training samples.

The statistics of batch norms differ between candidates; they are taken anew from some training samples before each
evaluation (Yu and Huang 2019, https://arxiv.org/abs/1903.05134, section 3.3).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from worker.engine.data.samples import Array, Samples, divided
from worker.engine.errors import InvalidDataset
from worker.engine.formats.fold import NORMS
from worker.engine.measure.accuracy import METRICS
from worker.engine.network import Network
from worker.engine.quantized.observe import batches
from worker.engine.search.space import Genes, Space
from worker.engine.training.batches import Batches
from worker.engine.training.losses import first_answer, hard_labels

#: One training sample in so many is held back to compare candidates on, and the most of them.
_HELD, _MOST_HELD = 5, 2000
#: Training samples that batch norms take their statistics from, before an evaluation and for the winner.
_STATISTICS, _MORE_STATISTICS = 512, 4096
_BATCH: Final = 64


@dataclass(frozen=True)
class Quality:
    """What an evaluation says.

    Attributes:
        metric: as the task measures it: accuracy, mean squared error; against the uploaded network's own answers where
            there are no labels.
        loss: cross entropy or mean squared error on the same samples; decides between equal metrics.
        score: ``metric``, or minus it where less is better.
    """

    metric: float
    loss: float
    score: float


def split_for_search(samples: Samples, seed: int) -> tuple[Samples, Samples]:
    """Samples to train on, and samples to compare candidates on; the same for the same seed and number.

    Raises:
        InvalidDataset: ``too_few_samples``.
    """
    if len(samples) < 2 * _HELD:
        raise InvalidDataset(
            "too_few_samples",
            f"there are {len(samples)} training samples, of which a search holds one in {_HELD} back to compare "
            f"networks on; give {2 * _HELD} or more",
        )
    return divided(samples, _HELD, _MOST_HELD, seed)


@dataclass
class Judge:
    """Evaluates candidates.

    Attributes:
        network: with the weights that candidates take theirs from; on the CPU.
        teacher: answers where there are no labels.
        training: what batch norms see.
        held: what candidates are compared on.
        task: of the first output, where it is known.
        work: multiply-accumulates that were spent so far.
    """

    space: Space
    network: Network
    teacher: Network
    training: Samples
    held: Samples
    task: str | None
    device: str
    seed: int
    work: float = 0.0

    def __post_init__(self) -> None:
        network = self.network
        given = Batches(network, self.training, size=_BATCH, seed=self.seed, device=self.device)
        self._given = given
        answers = self._answers(self.teacher)
        self._answer = first_answer(network, self.task, torch.from_numpy(np.asarray(answers)))
        labels = self.held.labels
        if labels is None:
            labels = answers.argmax(1) if self._answer.scores else answers
        self._labels = np.asarray(labels)[: len(answers)]
        self._metric = METRICS["classification" if self._answer.scores else "regression"]

    @property
    def name(self) -> str:
        """Of the metric."""
        return "accuracy" if self._answer.scores else "mse"

    def __call__(self, genes: Genes, macs: int) -> Quality:
        """Evaluate the candidate.

        Args:
            macs: its multiply-accumulates.
        """
        network = self.made(genes, macs, _STATISTICS)
        answers = self._answers(network)
        self.work += len(answers) * macs
        value = float(self._metric(answers, self._labels)[0].value)
        output, labels = torch.from_numpy(np.asarray(answers)), torch.from_numpy(self._labels)
        loss = float(hard_labels(output, labels, self._answer))
        loss = loss if np.isfinite(loss) else float(np.finfo(np.float64).max)
        return Quality(value, loss, value if self._answer.scores else -value)

    def made(self, genes: Genes, macs: int, statistics: int = _MORE_STATISTICS) -> Network:
        """The candidate's network, its batch norms with statistics of so many samples; on the CPU."""
        network = self.space.materialise(self.network, genes)
        if self._given.statistics:
            network.to(self.device)
            self.work += recalibrate(network, self._some(statistics)) * macs
        return network.to("cpu")

    def _some(self, count: int) -> Iterator[list[Tensor]]:
        """Inputs of about so many training samples."""
        for parts in self._given.epoch(0):
            for part in parts:
                if count <= 0:
                    return
                count -= len(part)
                yield part.inputs

    @torch.no_grad()
    def _answers(self, network: Network) -> Array:
        """(samples, ...) of the first output."""
        network.module.eval()
        found = [
            network.module(*inputs)[0].float().cpu().numpy()
            for inputs in batches(network.to(self.device), self.held, _BATCH, self.device)
        ]
        network.to("cpu")
        if not found:
            raise InvalidDataset("too_few_samples", f"{len(self.held)} held-back samples do not fill one fixed batch")
        answers: Array = np.concatenate(found)
        return answers


@torch.no_grad()
def recalibrate(network: Network, inputs: Iterable[list[Tensor]]) -> int:
    """Give the batch norms of `network` the mean statistics of these batches, in place; how many samples that were.

    Networks without batch norms run nothing.
    """
    norms = [part for part in network.module.modules() if isinstance(part, NORMS) and part.running_mean is not None]
    if not norms:
        return 0
    momenta = [norm.momentum for norm in norms]
    network.module.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.train().momentum = None
    count = 0
    for batch in inputs:
        network.module(*batch)
        count += len(batch[0])
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval().momentum = momentum
    return count
