"""Which operators mix what is in one dimension, told from the operator: random numbers need not show it."""

from typing import Final

from torch import fx, nn

_MIXING: Final = """
softmax _softmax _safe_softmax log_softmax _log_softmax cumsum cumprod cummax cummin logcumsumexp sort argsort topk flip
roll gather scatter scatter_add scatter_reduce index_select index_add index_copy index_fill index index_put
take_along_dim renorm cosine_similarity glu masked_scatter repeat_interleave diff
"""
#: Calls that keep the sizes and mix what is in one dimension.
_ALONG: Final = frozenset(_MIXING.split())
_NEIGHBOURS: Final = """
conv max_pool avg_pool adaptive_ upsample _upsample grid_sampler affine_grid pixel_ batch_norm instance_norm group_norm
native_group_norm im2col col2im unfold channel_shuffle
"""
#: How the names of calls begin that look at neighbours: the batch is in front.
_WINDOWS: Final = tuple(_NEIGHBOURS.split())
#: Layers that work along the last dimension or on each number.
_POINTWISE: Final = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.Dropout, nn.RMSNorm)
RECURRENT: Final = (nn.LSTM, nn.GRU, nn.RNN)


def works_along(node: fx.Node, layer: nn.Module | None, axis: int, dims: int) -> bool:
    """Whether a call that keeps its sizes mixes the entries of one dimension.

    Args:
        layer: the module that `node` calls; None: it calls an operator.
        axis: the dimension of its input.
        dims: how many the input has.
    """
    if layer is not None:
        if isinstance(layer, RECURRENT):
            return axis != (0 if layer.batch_first else dims - 2)
        return axis != 0 and not isinstance(layer, _POINTWISE)
    name = getattr(getattr(node.target, "_schema", None), "name", "").rpartition("::")[2]
    return (
        (name in _ALONG and axis in _along(node, dims))
        or (name.startswith(_WINDOWS) and axis != 0)
        or (name.startswith("scaled_dot_product") and axis >= dims - 2)
    )


def _along(node: fx.Node, dims: int) -> set[int]:
    """The dimensions that a call works along; all of them where it does not say."""
    arguments = node.target._schema.arguments  # type: ignore[union-attr]
    values = {argument.name: argument.default_value for argument in arguments}
    values |= {argument.name: value for argument, value in zip(arguments, node.args, strict=False)} | node.kwargs
    given = values.get("dim", values.get("dims"))
    axes = given if isinstance(given, (list, tuple)) else [given]
    return {axis % dims for axis in axes if isinstance(axis, int)} or set(range(dims))
