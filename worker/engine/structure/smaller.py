"""A narrower and shallower copy of a network, with the weights that are left of it."""

from worker.engine.errors import Unsupported
from worker.engine.network import Network
from worker.engine.structure.analyse import analyse
from worker.engine.structure.blocks import blocks, skip, thinned
from worker.engine.structure.choice import Chooser
from worker.engine.structure.importance import magnitude
from worker.engine.structure.remove import remove


def smaller(network: Network, *, width: float, depth: float) -> tuple[Network, list[str]]:
    """A copy with a share of the channels and of the residual blocks, and what to tell of it.

    Args:
        width: share of the channels, neurons and heads of each layer that stay, the largest ones; at least one.
        depth: share of the residual blocks that stay, evenly spread.
    Raises:
        Unsupported: ``no_layers`` where that would be the network as it is.
    """
    notes = []
    if depth < 1:
        found = blocks(network)
        left = thinned(found, depth)
        if not left:
            raise Unsupported(
                "no_layers",
                f"depth {depth:g} leaves out nothing: the model has {len(found)} residual blocks that it could run "
                "without; give width, or a smaller depth",
            )
        network = skip(network, [block.add for block in left])
        notes.append(f"the student lacks {len(left)} of {len(found)} residual blocks")
    if width < 1:
        structure, before = analyse(network), network.parameters
        chooser = Chooser(structure, structure.families, magnitude(network, structure), compete=False, round_to=1)
        keep = chooser.share(1 - width)
        if not chooser.structure.removed(keep):
            raise Unsupported(
                "no_layers",
                f"width {width:g} removes nothing: no layer of the model has so many channels that can go; give depth, "
                "a smaller width, or a student model",
            )
        network = remove(network, structure, keep)
        notes.append(f"the student is narrower: parameters {before} -> {network.parameters}")
        notes += [f"{path} keeps its width: {reason}" for path, reason in structure.left.items()]
    return network, notes
