"""The shapes of what a network computes."""

import torch
from torch import fx

from worker.engine.measure.macs import random_inputs
from worker.engine.network import Network
from worker.engine.quantized.observe import Watching


@torch.no_grad()
def shapes_of(network: Network, batch: int) -> dict[fx.Node, torch.Size]:
    """Node -> shape of its value for `batch` samples, where that is one tensor."""
    nodes = {node.name: node for node in network.module.graph.nodes}
    found: dict[fx.Node, torch.Size] = {}
    watching = Watching(network.module, nodes, lambda name, value: found.update({nodes[name]: value.shape}))
    watching.run(*random_inputs(network, batch))
    return found
