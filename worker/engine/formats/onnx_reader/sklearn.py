"""``ai.onnx.ml`` as skl2onnx writes it for scalers and linear models: linear ones become layers.

Classes and categories are numbers; strings do not exist in a network. ZipMap, which turns the probabilities of each
row into a dictionary, gives the probabilities as they are.
"""

from typing import Any, Final

import torch
from torch import Tensor, nn

from worker.engine.errors import Unsupported
from worker.engine.formats import codes
from worker.engine.formats.onnx_reader.node import Node, Operator
from worker.engine.formats.onnx_reader.values import Origin, unsupported

aten = torch.ops.aten


def _numbers(node: Node, name: str, dtype: torch.dtype = torch.float32) -> Tensor | None:
    values = node.attr(name)
    return None if values is None else torch.tensor(values, dtype=dtype)


def _refuse_strings(node: Node, *names: str) -> None:
    if any(node.attr(name) for name in names):
        raise _no_strings(node)


def _no_strings(node: Node) -> Unsupported:
    return Unsupported(
        codes.UNSUPPORTED_ATTRIBUTE,
        f"The ONNX model uses {node.op} with classes or categories that are strings, which networks do not have. "
        'Train with integer classes and convert with options={id(model): {"zipmap": False}}.',
    )


def _float(node: Node, index: int = 0) -> Any:
    x = node.tensor(index)
    return x if node.build.dtype(x) == torch.float32 else node.cast(x, torch.float32)


def _scaler(node: Node) -> Any:
    x = _float(node)
    for name, target in (("offset", aten.sub.Tensor), ("scale", aten.mul.Tensor)):
        values = _numbers(node, name)
        if values is not None:
            x = node.call(target, x, values)
    return x


def _normalizer(node: Node) -> Any:
    """Rows of length one; rows whose length is zero stay."""
    x, kind = _float(node), node.attr("norm", "MAX")
    if kind == "MAX":
        length = node.call(aten.amax.default, x, [-1], True)
    else:
        length = node.call(aten.linalg_vector_norm.default, x, {"L1": 1, "L2": 2}[kind], [-1], True)
    safe = node.call(aten.masked_fill.Scalar, length, node.call(aten.eq.Scalar, length, 0), 1.0)
    return node.call(aten.div.Tensor, x, safe)


def _linear(node: Node, rows: int) -> Any:
    """``x W' + b`` as a layer of `rows` outputs."""
    x, coefficients, bias = _float(node), _numbers(node, "coefficients"), _numbers(node, "intercepts")
    if coefficients is None or node.build.rank(x) != 2:
        raise unsupported(f"{node.op} without coefficients or of other than rows of features")
    weights = {"weight": coefficients.reshape(rows, -1)}
    if bias is not None and bias.numel():
        weights["bias"] = bias
    with torch.device("meta"):
        module = nn.Linear(weights["weight"].shape[1], rows, bias="bias" in weights)
    return node.build.layer(module, weights, x, Origin(node.name, "", node.name or node.op))


def _transformed(node: Node, scores: Any) -> Any:
    kind = node.attr("post_transform", "NONE")
    if kind == "NONE":
        return scores
    if kind == "SOFTMAX":
        return node.call(aten.softmax.int, scores, -1)
    if kind == "LOGISTIC":
        return node.call(aten.sigmoid.default, scores)
    raise unsupported(f"{node.op} with the transform {kind}")


def _classifier(node: Node) -> Any:
    """The class of the largest score, and the scores."""
    _refuse_strings(node, "classlabels_strings")
    labels, features = _numbers(node, "classlabels_ints", torch.int64), node.build.fixed(node.tensor(0), -1, node.op)
    rows = len(node.attr("coefficients") or []) // max(features, 1)
    if labels is None or labels.numel() != rows:
        raise unsupported(f"{node.op} with {rows} rows of coefficients for another number of classes")
    scores = _linear(node, rows)
    best = node.call(aten.argmax.default, scores, -1)
    return node.call(aten.index_select.default, labels, 0, best), _transformed(node, scores)


def _regressor(node: Node) -> Any:
    return _transformed(node, _linear(node, node.attr("targets", 1)))


def _imputer(node: Node) -> Any:
    x, whole = node.tensor(0), node.attr("imputed_value_int64s")
    values = torch.tensor(whole if whole else node.attr("imputed_value_floats"), dtype=node.build.dtype(x))
    missing = node.attr("replaced_value_int64" if whole else "replaced_value_float", 0)
    empty = aten.isnan.default if missing != missing else aten.eq.Scalar
    mask = node.call(empty, x) if missing != missing else node.call(empty, x, missing)
    return node.call(aten.where.self, mask, values, x)


def _feature_vectorizer(node: Node) -> Any:
    parts = [_float(node, index) for index in range(len(node.inputs))]
    parts = [node.call(aten.unsqueeze.default, p, 0) if node.build.rank(p) == 1 else p for p in parts]
    widths = node.attr("inputdimensions") or [None] * len(parts)
    if any(width not in (None, node.build.size(part, 1)) for width, part in zip(widths, parts, strict=True)):
        raise unsupported("FeatureVectorizer that cuts its inputs")
    return node.call(aten.cat.default, parts, 1)


def _table(node: Node, side: str) -> Tensor:
    """Keys or values of a LabelEncoder."""
    if node.attr(f"{side}_tensor") is not None:
        return node.attr(f"{side}_tensor")  # type: ignore[no-any-return]
    for kind, dtype in (("int64s", torch.int64), ("floats", torch.float32)):
        values = _numbers(node, f"{side}_{kind}", dtype)
        if values is not None:
            return values
    raise _no_strings(node)


def _label_encoder(node: Node) -> Any:
    x, keys, values = node.tensor(0), _table(node, "keys"), _table(node, "values")
    default = node.attr("default_tensor")
    if default is None:
        whole = values.dtype == torch.int64
        default = torch.tensor(node.attr("default_int64" if whole else "default_float", -1 if whole else -0.0))
    hit = node.call(aten.eq.Tensor, node.call(aten.unsqueeze.default, x, -1), keys)
    if keys.is_floating_point() and bool(keys.isnan().any()):
        raise unsupported("LabelEncoder with NaN as a key")
    place = node.call(aten.argmax.default, node.cast(hit, torch.int64), -1)
    flat = node.call(aten.index_select.default, values, 0, node.call(aten.reshape.default, place, [-1]))
    found = node.call(aten.reshape.default, flat, list(node.build.shape(x)))
    known = node.call(aten.any.dim, hit, -1)
    return node.call(aten.where.self, known, found, default.reshape([]).to(values.dtype))


def _one_hot_encoder(node: Node) -> Any:
    _refuse_strings(node, "cats_strings")
    x, categories = node.tensor(0), _numbers(node, "cats_int64s", torch.int64)
    if categories is None or not node.attr("zeros", 1):
        raise unsupported("OneHotEncoder that fails on unknown categories")
    hit = node.call(aten.eq.Tensor, node.call(aten.unsqueeze.default, x, -1), categories)
    return node.cast(hit, torch.float32)


def _binarizer(node: Node) -> Any:
    x = node.tensor(0)
    return node.cast(node.call(aten.gt.Scalar, x, node.attr("threshold", 0.0)), node.build.dtype(x))


def _zip_map(node: Node) -> Any:
    node.build.notes.append(
        f"{node.outputs[0]!r} is a list of dictionaries in the file (ZipMap); here it is the tensor of probabilities, "
        "one column for each class."
    )
    return node.value(0)


_OPERATORS: Final[dict[str, Operator]] = {
    "Scaler": _scaler,
    "Normalizer": _normalizer,
    "LinearClassifier": _classifier,
    "LinearRegressor": _regressor,
    "Imputer": _imputer,
    "FeatureVectorizer": _feature_vectorizer,
    "LabelEncoder": _label_encoder,
    "OneHotEncoder": _one_hot_encoder,
    "Binarizer": _binarizer,
    "ZipMap": _zip_map,
}

OPERATORS: Final[dict[str, Operator]] = {f"ai.onnx.ml.{name}": function for name, function in _OPERATORS.items()}
