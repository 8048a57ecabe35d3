"""Which weights of a network may be pruned: the matrices and kernels of its layers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from torch import fx, nn

from app.recipes.methods import LayerFilter
from worker.engine.network import Network, owners
from worker.engine.quantized.placement import layer_calls
from worker.engine.sparse.patterns import FOUR, fits_fours

_TRANSPOSED: Final = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
#: Layers whose weight is pruned; of recurrent ones the matrices are.
PRUNED: Final = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED, nn.Linear, nn.RNNBase)


@dataclass(frozen=True)
class Prunable:
    """What may be pruned.

    Attributes:
        names: of parameters, each (outputs, inputs, ...), or (inputs, outputs, ...) of transposed convolutions; in the
            order of the graph.
        left: name of a layer's parameter that stays as it is -> why.
    """

    names: tuple[str, ...]
    left: dict[str, str]


def prunable(network: Network, layers: LayerFilter, *, fours: bool) -> Prunable:
    """The weights of the `layers` of `network`.

    Args:
        fours: only weights that can be two of every four.
    """
    module = network.module
    owned = owners(module)
    names: list[str] = []
    left: dict[str, str] = {}
    for path, layer in dict.fromkeys((str(node.target), layer) for node, layer in layer_calls(module)):
        if not isinstance(layer, PRUNED) or not layers.matches(path):
            continue
        for name, weight in _weights(layer):
            others = [other for other in owned[id(weight)] if other != path]
            if others:
                left[f"{path}.{name}"] = f"it is shared with {', '.join(others)}"
            elif fours and (isinstance(layer, _TRANSPOSED) or not fits_fours(weight)):
                left[f"{path}.{name}"] = _no_fours(layer, weight)
            else:
                names.append(f"{path}.{name}")
    return Prunable(tuple(names), left)


def _weights(layer: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    for name, parameter in layer.named_parameters(recurse=False):
        if name == "weight" or (isinstance(layer, nn.RNNBase) and parameter.dim() == 2):
            yield name, parameter


def _no_fours(layer: nn.Module, weight: nn.Parameter) -> str:
    if isinstance(layer, _TRANSPOSED):
        return "no kernel takes two of four in a transposed convolution"
    return f"its inputs ({weight.shape[1]}) are no multiple of {FOUR}"


def weight_of(module: fx.GraphModule, name: str) -> nn.Parameter:
    """The parameter called `name`."""
    return module.get_parameter(name)
