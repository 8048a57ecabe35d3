"""How labels go through operators that compute. What is not listed freezes what goes in."""

from collections.abc import Callable
from typing import Any, Final

from torch import Tensor

from worker.engine.structure import movement
from worker.engine.structure.call import Call, Labels, Rule, nobody
from worker.engine.structure.labels import (
    channels,
    combine,
    essential,
    multiply,
    settle,
    varying,
)

_ELEMENTWISE: Final = """
abs absolute acos acosh add addcdiv addcmul arccos arcsin arctan arctan2 asin asinh atan atan2 atanh bitwise_and
bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor ceil celu clamp clamp_max clamp_min clip
clone copy copysign cos cosh deg2rad div divide dropout elu eq erf erfc erfinv exp exp2 expm1 feature_dropout
alpha_dropout fix floor floor_divide fmax fmin fmod frac full_like ge gelu greater greater_equal gt hardshrink
hardsigmoid hardswish hardtanh heaviside hypot isclose isfinite isinf isnan le leaky_relu lerp less less_equal
lift_fresh lift_fresh_copy log log10 log1p log2 log_sigmoid logaddexp logical_and logical_not logical_or logical_xor
logit lt masked_fill maximum minimum mish mul multiply nan_to_num ne neg negative not_equal ones_like pow rad2deg
rand_like randn_like reciprocal relu relu6 remainder round rsqrt rsub selu sgn sigmoid sign signbit silu sin sinc sinh
softplus softshrink sqrt square sub subtract tan tanh threshold true_divide trunc where zeros_like rms_norm layer_norm
zero
"""
#: The dtype or the shape of another tensor, not its content, is what these take.
_FIRST: Final = "to type_as _to_copy fill tril triu"
_ALONG: Final = """
softmax _softmax log_softmax _log_softmax _safe_softmax cumsum cumprod cummax cummin logcumsumexp sort topk argsort
"""
_REDUCTIONS: Final = """
amax amin max min norm linalg_vector_norm logsumexp prod argmax argmin any all median
count_nonzero
"""
_SPATIAL: Final = {
    **{f"{kind}_pool{k}d": k for kind in ("avg", "max", "adaptive_avg", "adaptive_max") for k in (1, 2, 3)},
    **{f"max_pool{k}d_with_indices": k for k in (1, 2, 3)},
    **{f"_adaptive_avg_pool{k}d": k for k in (2, 3)},
    **{f"upsample_nearest{k}d": k for k in (1, 2, 3)},
    **{f"{kind}_pad{k}d": k for kind in ("reflection", "replication") for k in (1, 2, 3)},
    "upsample_linear1d": 1,
    "upsample_bilinear2d": 2,
    "_upsample_bilinear2d_aa": 2,
    "upsample_bicubic2d": 2,
    "upsample_trilinear3d": 3,
}


def _elementwise(call: Call) -> Labels:
    return combine(call.ties, call.tensors, call.shape, call.meets)


def _first(call: Call) -> Labels:
    return call.data


def _along(call: Call) -> Labels:
    settle(call.ties, call.data, call.dims(), call.across)
    return call.data if isinstance(call.result, Tensor) else _spread(call, call.data)


def _spread(call: Call, labels: Tensor) -> Labels:
    """One label for every dimension that changes its size; for each of several results."""
    found = []
    for result in [call.result] if isinstance(call.result, Tensor) else call.result:
        short = labels
        for dim, size in enumerate(result.shape):
            if size != short.shape[dim]:
                short = short.narrow(dim, 0, 1)
        found.append(short.expand(result.shape))
    return found[0] if isinstance(call.result, Tensor) else tuple(found)


def _reduction(call: Call) -> Labels:
    if call.arguments.get("other") is not None:  # ``max(a, b)``
        return _elementwise(call)
    settle(call.ties, call.data, call.dims(), call.across)
    return _reduced(call)


def _mean(call: Call) -> Labels:
    """A mean of the last dimension that is kept beside its values is that of a norm written out."""
    last = call.data.dim() - 1
    if call.arguments.get("keepdim") and call.dims() == [last] and varying(call.ties, call.data) == (last,):
        return nobody(call.result)
    return _reduction(call)


def _sum(call: Call) -> Labels:
    """A sum loses nothing with what is zero."""
    dims = set(call.dims())
    differ = set(varying(call.ties, call.data))
    if differ & dims and not differ - dims:
        return nobody(call.result)
    settle(call.ties, call.data, dims, call.across)
    return _reduced(call)


def _reduced(call: Call) -> Labels:
    labels = call.data
    dims = call.dims()
    for dim in dims:
        labels = labels.narrow(dim, 0, 1)
    if not call.arguments.get("keepdim"):
        labels = labels.reshape([size for dim, size in enumerate(labels.shape) if dim not in dims])
    if isinstance(call.result, Tensor):
        return labels.expand(call.shape)
    return tuple(labels.expand(part.shape) for part in call.result)


def _spatial(dims: int) -> Rule:
    def rule(call: Call) -> Labels:
        rank = call.data.dim()
        settle(call.ties, call.data, range(rank - dims, rank), call.across)
        return _spread(call, call.data)

    return rule


def _product(*names: str, added: str | None = None) -> Rule:
    def rule(call: Call) -> Labels:
        one, other = (call.labels[name] for name in names)
        if min(one.dim(), other.dim()) < 2:
            return unknown(call)
        found = multiply(call.ties, one, other, call.shape, call.meets)
        if added is None:
            return found
        return combine(call.ties, [found, call.labels[added]], call.shape, call.meets)

    return rule


def _linear(call: Call) -> Labels:
    """A matrix that is no layer's: only what it reads can be removed."""
    weight = call.labels["weight"]
    if weight.dim() != 2 or call.labels["input"].dim() < 2:
        return unknown(call)
    found = multiply(call.ties, call.labels["input"], weight.mT, call.shape, call.meets)
    if not isinstance(call.labels["bias"], Tensor):
        return found
    return combine(call.ties, [found, call.labels["bias"]], call.shape, call.meets)


def _attention(call: Call) -> Labels:
    query, key, value, mask = (call.labels[name] for name in ("query", "key", "value", "attn_mask"))
    if call.arguments.get("enable_gqa") or query.dim() < 3:
        return unknown(call)
    ties = call.ties
    shape = [*call.shape[:-1], key.shape[-2]]
    scores = multiply(ties, query, key.mT, shape, call.meets)
    if isinstance(mask, Tensor):
        scores = combine(ties, [scores, mask], shape, call.meets)
    settle(ties, scores, [-1], call.across)
    return multiply(ties, scores, value, call.shape, call.meets)


def _glu(call: Call) -> Labels:
    dim = call.dims()[0]
    size = call.data.shape[dim] // 2
    halves = [call.data.narrow(dim, start, size) for start in (0, size)]
    return combine(call.ties, halves, call.shape, call.meets)


def _channel_norm(call: Call) -> Labels:
    """``batch_norm`` and ``instance_norm`` whose numbers are no layer's: along dimension 1."""
    names = ("weight", "bias", "running_mean", "running_var")
    given = [call.labels[name] for name in names if isinstance(call.labels.get(name), Tensor)]
    shape = [1, -1, *[1] * (len(call.shape) - 2)]
    labels = combine(call.ties, [call.data, *(one.reshape(shape) for one in given)], call.shape, call.meets)
    return labels if isinstance(call.result, Tensor) else (labels, *nobody(call.result[1:]))


def _group_norm(call: Call) -> Labels:
    groups = call.arguments.get("num_groups", call.arguments.get("group"))
    movement.grouped(call, channels(call.ties, call.data, 1, call.across), int(groups))
    return _channel_norm(call)


def _prelu(call: Call) -> Labels:
    slope = call.labels["weight"]
    shape = [1, -1, *[1] * (len(call.shape) - 2)]
    return combine(call.ties, [call.data, slope.reshape(shape)], call.shape, call.meets)


def unknown(call: Call) -> Labels:
    """What goes in stays."""
    for labels in call.tensors:
        call.ties.freeze(essential(labels), call.across)
    return nobody(call.result)


_OTHERS: Final[dict[str, Callable[[Call], Any]]] = {
    "mm": _product("self", "mat2"),
    "bmm": _product("self", "mat2"),
    "matmul": _product("self", "other"),
    "addmm": _product("mat1", "mat2", added="self"),
    "baddbmm": _product("batch1", "batch2", added="self"),
    "linear": _linear,
    "scaled_dot_product_attention": _attention,
    "glu": _glu,
    "batch_norm": _channel_norm,
    "instance_norm": _channel_norm,
    "group_norm": _group_norm,
    "prelu": _prelu,
    "sum": _sum,
    **dict.fromkeys(("mean", "var", "std", "var_mean", "std_mean"), _mean),
}

#: Operator name, without the underscore of those in place -> its rule.
RULES: Final[dict[str, Rule]] = {
    **dict.fromkeys(_ELEMENTWISE.split(), _elementwise),
    **dict.fromkeys(_FIRST.split(), _first),
    **dict.fromkeys(_ALONG.split(), _along),
    **dict.fromkeys(_REDUCTIONS.split(), _reduction),
    **{name: _spatial(dims) for name, dims in _SPATIAL.items()},
    **_OTHERS,
    **movement.RULES,
}
