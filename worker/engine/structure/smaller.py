"""A narrower and shallower copy of a network, with the weights that are left of it."""

import numpy as np

from worker.engine.network import Network
from worker.engine.structure.analyse import analyse
from worker.engine.structure.blocks import blocks, skip, thinned
from worker.engine.structure.importance import magnitude
from worker.engine.structure.model import Keep, Structure
from worker.engine.structure.remove import remove


def smaller(network: Network, *, width: float, depth: float) -> tuple[Network, list[str]]:
    """A copy with a share of the channels and of the residual blocks, and what to tell of it.

    Args:
        width: share of the channels, neurons and heads of each family that stay, the largest ones; at least one.
        depth: share of the residual blocks that stay, evenly spread.
    """
    notes = []
    if depth < 1:
        found = blocks(network)
        left = thinned(found, depth)
        network = skip(network, [block.add for block in left])
        notes.append(f"{len(left)} of {len(found)} residual blocks were left out")
    if width < 1:
        structure = analyse(network)
        before = network.parameters
        if structure.families:
            network = remove(network, structure, largest(network, structure, width))
        notes.append(f"the widths of {len(structure.families)} groups of layers: {before} -> {network.parameters}")
        notes += [f"{path} keeps its width: {reason}" for path, reason in structure.left.items()]
    return network, notes


def largest(network: Network, structure: Structure, share: float) -> Keep:
    """The choice that keeps a share of each family: the units whose weights have the largest norm."""
    scores = magnitude(network, structure)
    keep = structure.everything()
    for family in structure.families:
        count = max(round(share * len(family)), 1)
        order = np.argsort(-scores[family.units], kind="stable")
        keep[family.start + order[count:]] = False
    return keep
