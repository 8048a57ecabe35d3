"""Pruning while a network trains: ever more weights go, and the others adapt.

Masks are found anew several times on the way (`schedule`), from the weights as they are then; what is gone stays gone.
With `l1`, weights that may go are pulled to zero until all are gone that shall: after each step of the optimizer
``w = sign(w) max(|w| - rate l1, 0)``, the proximal operator of the l1 norm (Parikh and Boyd 2014, "Proximal
algorithms", section 6.5.2), which leaves the optimizer's moments alone as decoupled weight decay does.

Masks are buffers beside their weights, so that whatever keeps a training keeps them too; how often weights have gone
is told by how far the training is. A training that goes on therefore ends with the numbers of one that did not stop.
"""

import copy
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor, fx, nn

from worker.engine.network import Network
from worker.engine.sparse.criteria import Pruning
from worker.engine.sparse.prunable import weight_of
from worker.engine.sparse.schedule import TIMES, at_once, due, gradual
from worker.engine.training.whole import any_order

#: What is added to a weight's name for that of its mask.
_GONE: Final = "_gone"


@dataclass
class Thinning:
    """What goes on around the steps of a training.

    Attributes:
        pruning: what is to be pruned, as it is in front of the training.
        done: how many of the `TIMES` are over; None before the first step that this process sees.
    """

    pruning: Pruning
    done: int | None = None

    def begin(self) -> Network:
        """A copy of the network with the masks beside its weights."""
        network = replace(self.pruning.network, module=copy.deepcopy(self.pruning.network.module))
        for name, gone in self.pruning.gone.items():
            layer, key = _place(network.module, name)
            layer.register_buffer(key, gone.clone())
        return network

    def end(self, network: Network) -> None:
        """Take the masks out again."""
        for name in self.pruning.names:
            layer, key = _place(network.module, name)
            del layer._buffers[key]

    def before(self, network: Network, share: float) -> None:
        """In front of a step of the optimizer, with the share of the training that is done."""
        if self.done is None:
            self.done = due(share)

    @torch.no_grad()
    def after(self, network: Network, share: float) -> None:
        """Behind a step: prune where it is time, pull to zero, and keep zero what is gone."""
        step, times = self.pruning.step, due(share)
        if step.l1 and times < TIMES:
            shift = step.learning_rate * step.l1
            for name in self.pruning.names:
                weight = weight_of(network.module, name)
                weight.copy_(nn.functional.softshrink(weight, shift))
        masks = self._masks(network.module)
        for name, gone in masks.items():
            weight_of(network.module, name).masked_fill_(gone, 0.0)
        if self.done is not None and times > self.done:
            sparsity = (gradual if step.schedule == "gradual" else at_once)(times, step.sparsity)
            if sparsity > 0:
                self._prune(network, masks, sparsity)
        self.done = times

    def _masks(self, module: fx.GraphModule) -> dict[str, Tensor]:
        return {name: module.get_buffer(name + _GONE) for name in self.pruning.names}

    def _prune(self, network: Network, masks: dict[str, Tensor], sparsity: float) -> None:
        """In evaluation mode: what criteria look at is what the network answers in the end."""
        modes = {part: part.training for part in network.module.modules()}
        network.module.eval()
        # Images may lie in channels-last order here.
        working = replace(network, module=any_order(network.module))
        found = replace(self.pruning, network=working, gone=masks).prune(sparsity)
        for part, training in modes.items():
            part.training = training
        for name, gone in found.items():
            masks[name].copy_(gone)


def _place(module: fx.GraphModule, name: str) -> tuple[nn.Module, str]:
    """The layer that has a weight, and the name of its mask there."""
    path, _, key = name.rpartition(".")
    return module.get_submodule(path), key + _GONE
