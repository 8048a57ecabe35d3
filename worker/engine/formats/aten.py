"""Which calls a network may contain.

An allow list: an uploaded program names its operators, and some of aten reads files (``from_file``), shows
uninitialized memory (``empty``) or trusts its arguments (``as_strided``, ``set_``). What is missing is refused
by name, so adding an operator is adding a word.
"""

import math
import operator
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import fx

_OPERATORS: Final = """
_adaptive_avg_pool2d _adaptive_avg_pool3d _log_softmax _native_batch_norm_legit_no_training _safe_softmax
_scaled_dot_product_attention_math _scaled_dot_product_flash_attention_for_cpu _shape_as_tensor _softmax _to_copy
_unsafe_index _unsafe_view _upsample_bilinear2d_aa _weight_norm _weight_norm_interface
abs absolute acos acosh adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d
adaptive_max_pool2d adaptive_max_pool3d add addbmm addcdiv addcmul addmm addmv affine_grid_generator alias
all alpha_dropout amax amin aminmax any arange arccos arcsin arctan arctan2 argmax argmin argsort asin asinh atan
atan2 atanh avg_pool1d avg_pool2d avg_pool3d baddbmm batch_norm bilinear bitwise_and bitwise_left_shift bitwise_not
bitwise_or bitwise_right_shift bitwise_xor bmm broadcast_tensors broadcast_to bucketize cat cdist ceil celu
channel_shuffle chunk clamp clamp_max clamp_min clip clone col2im column_stack concat concatenate constant_pad_nd
contiguous conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution copy copysign cos
cosh cosine_similarity count_nonzero cross cummax cummin cumprod cumsum deg2rad detach diag diag_embed diagonal diff
div divide dot dropout einsum elu embedding embedding_bag eq erf erfc erfinv exp exp2 expand expand_as
expm1 eye feature_dropout fill fix flatten flip fliplr flipud floor floor_divide fmax fmin fmod frac
full full_like gather ge gelu glu greater greater_equal grid_sampler grid_sampler_2d grid_sampler_3d group_norm gru
gru_cell gt hardshrink hardsigmoid hardswish hardtanh heaviside hstack hypot im2col index index_add index_copy
index_fill index_put index_select inner instance_norm isclose isfinite isinf isnan isneginf isposinf item kron
l1_loss layer_norm le leaky_relu lerp less less_equal lift_fresh lift_fresh_copy linalg_norm linalg_vector_norm linear
linspace log log10 log1p log2 log_sigmoid log_softmax logaddexp logcumsumexp logical_and logical_not logical_or
logical_xor logit logsumexp lstm lstm_cell lt masked_fill masked_scatter masked_select matmul max max_pool1d
max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices maximum mean median
meshgrid min minimum mish mm movedim moveaxis mul multiply mv nan_to_num narrow native_batch_norm native_dropout
native_group_norm native_layer_norm ne neg negative new_full new_ones new_zeros nonzero norm normal
not_equal numpy_T one_hot ones ones_like outer pad pairwise_distance permute pixel_shuffle pixel_unshuffle pow prelu
prod quantile rad2deg rand rand_like randn randn_like randint randperm ravel reciprocal reflection_pad1d
reflection_pad2d reflection_pad3d relu relu6 remainder repeat repeat_interleave replication_pad1d replication_pad2d
replication_pad3d reshape reshape_as rms_norm rnn_relu rnn_tanh roll rot90 round rsqrt rsub scalar_tensor
scaled_dot_product_attention scatter scatter_add scatter_reduce searchsorted select select_scatter selu sgn sigmoid
sign signbit silu sin sinc sinh slice slice_scatter softmax softplus softshrink sort split split_with_sizes sqrt
square squeeze stack std std_mean sub subtract sum sym_numel sym_size swapaxes swapdims t take take_along_dim tan tanh
tensor_split threshold tile to topk transpose trapezoid tril tril_indices triu triu_indices true_divide trunc
type_as unbind unflatten unfold unsqueeze upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d
upsample_nearest2d upsample_nearest3d upsample_trilinear3d vander var var_mean vdot view view_as vstack where zeros
zeros_like
"""

#: Names under ``torch.ops.aten`` that a network may call; the in-place form (``relu_``) goes with the plain one.
ALLOWED: Final = frozenset(_OPERATORS.split()) | {"zero", "detach"}

#: What Python's operators call on tensors -> the same under the name that every exporter knows.
WORDS: Final = {
    f"__{place}{word}__": f"bitwise_{word}{'_' if place else ''}"
    for word in ("and", "or", "xor")
    for place in ("", "i")
}

#: aten returns its input where there is nothing to drop, so the result may be the same memory.
_SOMETIMES_ALIASES: Final = ("dropout", "feature_dropout", "alpha_dropout")

#: Checks of shapes and types that an exporter writes down: true for every input that the graph can take.
_ASSERTIONS: Final = """
_assert_async _assert_scalar _assert_tensor_metadata sym_constrain_range sym_constrain_range_for_size
_functional_assert_async _functional_assert_scalar _functional_sym_constrain_range
"""
ASSERTIONS: Final = frozenset(_ASSERTIONS.split())

#: Arithmetic on sizes, by the name that a serialized program gives it.
_ARITHMETIC: Final = "add sub mul floordiv mod neg pos pow truediv eq ne lt le gt ge and_ or_"
_FUNCTIONS: Final = "sym_int sym_float sym_max sym_min sym_not sym_ite"
SYMBOLIC: Final[dict[str, Callable[..., Any]]] = {
    **{f"_operator.{name}": getattr(operator, name) for name in _ARITHMETIC.split()},
    "_operator.getitem": operator.getitem,
    "math.trunc": math.trunc,
    **{f"torch.{name}": getattr(torch, name) for name in _FUNCTIONS.split()},
}
_SYMBOLIC_FUNCTIONS: Final = frozenset(SYMBOLIC.values())


def name_of(target: object) -> str:
    """How a call's target is named to people: ``aten.conv2d``, ``torchvision.nms``, ``cond``."""
    if isinstance(target, torch._ops.OpOverload):
        return f"{target.namespace}.{target._schema.name.split('::')[1]}"
    return str(getattr(target, "__name__", target))


def canonical(target: torch._ops.OpOverload) -> torch._ops.OpOverload:
    """`target`, or the operator under whose name networks have it: ``bitwise_and`` for ``__and__``."""
    namespace, name = target._schema.name.split("::")
    packet = getattr(torch.ops.aten, WORDS.get(name, ""), None) if namespace == "aten" else None
    return target if packet is None else getattr(packet, target._overloadname, target)


def aliases(node: fx.Node) -> bool:
    """Whether the node's result may share memory with one of its inputs."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return node.target is operator.getitem
    schema = node.target._schema
    shared = any(value.alias_info is not None for value in schema.returns)
    return shared or schema.name.split("::")[1] in _SOMETIMES_ALIASES


def is_assertion(target: object) -> bool:
    """Whether the call only checks something, so that it can be left out."""
    if isinstance(target, torch._ops.OpOverload):
        return target.namespace == "aten" and target._schema.name.split("::")[1] in ASSERTIONS
    return target in (torch._check, torch._check_is_size)


def is_allowed(target: object) -> bool:
    """Whether a network may contain calls of `target`."""
    if not isinstance(target, torch._ops.OpOverload):
        return target in _SYMBOLIC_FUNCTIONS
    target = canonical(target)
    name = target._schema.name.split("::")[1]
    plain = name if name.startswith("_") or not name.endswith("_") else name[:-1]
    return target.namespace == "aten" and plain in ALLOWED and "out" not in target._overloadname.split("_")


def resolve(name: str) -> Callable[..., Any] | None:
    """The function behind a serialized target such as ``torch.ops.aten.conv2d.default``.

    Returns None for whatever a network may not contain; nothing outside the tables above is ever looked up.
    """
    if name in SYMBOLIC:
        return SYMBOLIC[name]
    parts = name.split(".")
    if len(parts) not in (4, 5) or parts[:3] != ["torch", "ops", "aten"]:
        return None
    operator_name, overload = WORDS.get(parts[3], parts[3]), parts[4] if len(parts) == 5 else "default"
    plain = operator_name.rstrip("_")
    if not {operator_name, plain} & (ALLOWED | ASSERTIONS) or overload.startswith("_"):
        return None
    packet = getattr(torch.ops.aten, operator_name, None)
    if not isinstance(packet, torch._ops.OpOverloadPacket):
        return None
    if overload not in packet.overloads():  # type: ignore[no-untyped-call]
        return None
    target: Callable[..., Any] = getattr(packet, overload)
    return target if is_allowed(target) or is_assertion(target) else None
