"""Which weights of a network go, by the criterion of a ``prune.weights`` step.

``magnitude``: the smallest |w| of a layer (Han et al. 2015, https://arxiv.org/abs/1506.02626); across layers the
smallest `lamp`. ``sensitivity``: the smallest w^2 E[g^2] (`fisher`). ``wanda`` and ``sparsegpt``: by what layers read
(`inputs`).
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from app.recipes.methods import PruneWeights
from worker.engine.data.samples import Samples
from worker.engine.network import Network
from worker.engine.quantized.placement import LAYERS
from worker.engine.sparse.fisher import squared_gradients
from worker.engine.sparse.inputs import Prune, Share, behind_each_other, sparsegpt, wanda
from worker.engine.sparse.patterns import lowest_across, lowest_of_four, lowest_share
from worker.engine.sparse.prunable import weight_of

_BY_INPUTS: Final[Mapping[str, Prune]] = {"wanda": wanda, "sparsegpt": sparsegpt}


@dataclass(frozen=True)
class Pruning:
    """What is to be pruned and how.

    Attributes:
        network: in eval mode; its weights change.
        names: of the parameters that may be pruned.
        gone: name -> mask of what is pruned already, and stays so.
        samples: what criteria other than magnitude look at.
        task: of their labels.
        progress: called with 0..1.
    """

    network: Network
    names: Sequence[str]
    gone: Mapping[str, Tensor]
    step: PruneWeights
    samples: Samples | None = None
    task: str | None = None
    device: str = "cpu"
    seed: int = 0
    progress: Callable[[float], None] = lambda fraction: None

    def prune(self, sparsity: float) -> dict[str, Tensor]:
        """Set weights to zero until that share of them is; name -> mask of what is pruned.

        Raises:
            InvalidDataset: ``not_finite`` where a sample leads to NaN or infinity; ``too_few_samples``.
        """
        masks = self._by_inputs(sparsity) if self.step.criterion in _BY_INPUTS else {}
        rest = [name for name in self.names if name not in masks]
        masks.update(self._by_scores(rest, sparsity))
        with torch.no_grad():
            for name, mask in masks.items():
                weight_of(self.network.module, name).masked_fill_(mask, 0.0)
        return masks

    def blind(self) -> list[str]:
        """Names of weights whose inputs the criterion would look at and cannot: they go by magnitude."""
        if self.step.criterion not in _BY_INPUTS:
            return []
        module = self.network.module
        return [n for n in self.names if not isinstance(module.get_submodule(n.rpartition(".")[0]), LAYERS)]

    def _by_inputs(self, sparsity: float) -> dict[str, Tensor]:
        blind = set(self.blind())
        seen = {name: self.gone[name] for name in self.names if name not in blind}
        if self.samples is None:
            raise ValueError(f"{self.step.criterion} needs samples")
        before = replace(self.network, module=copy.deepcopy(self.network.module))
        share = Share(sparsity, self.step.pattern == "2:4")
        return behind_each_other(
            before, self.network.module, self.samples, seen, share, _BY_INPUTS[self.step.criterion],
            device=self.device, seed=self.seed, progress=self.progress,
        )  # fmt: skip

    def _by_scores(self, names: Sequence[str], sparsity: float) -> dict[str, Tensor]:
        if not names:
            return {}
        scores = {name: value.masked_fill(self.gone[name], -1.0) for name, value in self._scores(names).items()}
        if self.step.across_layers:
            masks = lowest_across(scores, sparsity)
        else:
            lowest = lowest_of_four if self.step.pattern == "2:4" else lowest_share
            masks = {name: lowest(value, sparsity) for name, value in scores.items()}
        return {name: mask | self.gone[name] for name, mask in masks.items()}

    def _scores(self, names: Sequence[str]) -> dict[str, Tensor]:
        weights = {name: weight_of(self.network.module, name).detach().float() for name in names}
        if self.step.criterion != "sensitivity":
            score = lamp if self.step.across_layers else torch.abs
            return {name: score(weight) for name, weight in weights.items()}
        if self.samples is None:
            raise ValueError("sensitivity needs samples")
        power = squared_gradients(
            self.network, self.samples, names,
            task=self.task, device=self.device, seed=self.seed, progress=self.progress,
        )  # fmt: skip
        return {name: weight.square() * power[name] for name, weight in weights.items()}


def lamp(weight: Tensor) -> Tensor:
    """Magnitudes that compare across layers (Lee et al. 2021, https://arxiv.org/abs/2010.07611, equation 4).

    ``w_j^2`` over the sum of all w_k^2 of the layer that are not smaller: the share of what is left of the layer that
    goes with w_j, where smaller ones have gone before. Its order within a layer is that of |w|, the scale of a layer,
    which a batch norm behind it undoes, makes no difference, and no layer loses all.

    Args:
        weight: of any shape.
    """
    squares = weight.reshape(-1).double().square()
    order = torch.argsort(squares, stable=True)
    left = squares[order].flip(0).cumsum(0).flip(0)
    scores = torch.empty_like(squares)
    scores[order] = squares[order] / left.clamp(min=torch.finfo(torch.float64).tiny)
    return scores.to(weight.dtype).reshape(weight.shape)
