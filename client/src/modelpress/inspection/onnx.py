"""What the service says to an ONNX file, in the order in which it looks."""

import posixpath
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Final

from modelpress.inspection import tables
from modelpress.inspection.onnx_model import STANDARD, Body, Call, OnnxModel, Tensor, TooManyNodes, read
from modelpress.inspection.protobuf import TooLong, Wire
from modelpress.inspection.report import Findings, Operator, Refused, is_float, itemsize
from modelpress.inspection.stream import Damaged, Stream

_MAX_CALLS: Final = 50

_STRINGS = (
    "{name} holds strings, which networks do not have. Train a scikit-learn model with integer classes and convert it "
    'with options={{id(model): {{"zipmap": False}}}}.'
)


def inspect(stream: Stream, findings: Findings, beside: Collection[str] | None = None) -> None:
    """Report on the ONNX model in `stream`.

    Args:
        stream: at its beginning.
        findings: what is found goes there.
        beside: names of the files that are uploaded with it; None: it is alone.
    """
    limits = tables.table()["onnx"]
    findings.format = "onnx"
    if stream.size > limits["max_file"]:
        findings.refuse(
            "archive_too_large",
            f"An ONNX file of {stream.size} bytes is beyond the 2 GiB of its format. Save it with its "
            "weights in a file beside it (save_as_external_data=True) and upload both as one zip.",
        )
    try:
        model = read(Wire(stream))
    except Damaged as error:
        raise Refused("file_damaged", f"The ONNX file is damaged or cut off ({error}). Upload it again.") from error
    except TooManyNodes as error:
        raise Refused("archive_too_large", f"The model has more than {limits['max_nodes']} nodes.") from error
    except TooLong:
        findings.notes.append("The graph is larger than what this check reads; the service reads all of it.")
        return
    _describe(model, findings)
    if not model.has_graph or not model.outputs:
        raise Refused("file_incomplete", "The ONNX file holds no graph with outputs. Export the model again.")
    if model.nodes > limits["max_nodes"]:
        findings.refuse(
            "archive_too_large", f"The model has {model.nodes} nodes; at most {limits['max_nodes']} are read."
        )
    if model.sparse:
        findings.refuse("unsupported_input", "The model has sparse initializers. Export it with dense weights.")
    _check_tensors(model, findings, beside)
    _check_opset(model, findings)
    if any(value.type is not None and value.shape is None for value in [*model.inputs, *model.outputs]):
        findings.refuse(
            "graph_invalid",
            "The model breaks the ONNX specification: Field 'shape' of 'type' is required but missing. Export the "
            "model with the number of dimensions of its inputs and outputs.",
        )
    findings.operators = _operators(model, findings)
    findings.operators_refused()
    _check_types(model, findings)
    findings.batch()


def _describe(model: OnnxModel, findings: Findings) -> None:
    dtypes: Mapping[str, str] = tables.table()["onnx"]["dtypes"]
    held = {tensor.name for tensor in model.initializers}
    findings.producer = model.producer or None
    findings.version = f"opset {model.opset}, IR {model.ir}"
    model.inputs = [value for value in model.inputs if value.name not in held]
    findings.inputs = tuple(value.spec(dict(dtypes)) for value in model.inputs)
    findings.outputs = tuple(value.spec(dict(dtypes)) for value in model.outputs)
    known = [(tensor, dtypes[str(tensor.type)]) for tensor in model.initializers if str(tensor.type) in dtypes]
    findings.parameters = sum(
        tensor.count for tensor, dtype in known if is_float(dtype) and tensor.name not in model.statistics
    )
    findings.weight_bytes = sum(tensor.count * itemsize(dtype) for tensor, dtype in known)


def _check_tensors(model: OnnxModel, findings: Findings, beside: Collection[str] | None) -> None:
    tensors = [*model.initializers, *model.constants]
    outside = [tensor for tensor in tensors if tensor.external]
    if outside and beside is None:
        findings.refuse(
            "external_data_refused",
            f"Weight {outside[0].name[:120]!r} lies in another file. Upload a zip of the .onnx and the files beside "
            "it, or write one file: torch.onnx.export(..., external_data=False), or onnx.save(onnx.load('model.onnx'), "
            "'single.onnx').",
        )
        findings.notes.append(f"Its weights lie in {_list({tensor.location for tensor in outside})}.")
    elif beside is not None:
        missing = [tensor for tensor in outside if posixpath.normpath(tensor.location) not in beside]
        if missing:
            findings.refuse(
                "file_incomplete",
                f"Weight {missing[0].name[:120]!r} lies in {missing[0].location[:120]!r}, which is not in the zip. "
                "Put it beside the .onnx and zip both again.",
            )
    problem = next(filter(None, map(_wrong, tensors)), None)
    if problem:
        findings.refuse("weights_invalid", problem)


def _list(names: Collection[str]) -> str:
    shown = sorted(names)[:5]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return ", ".join(repr(name[:120]) for name in shown) + more


def _wrong(tensor: Tensor) -> str | None:
    rank: int = tables.table()["onnx"]["max_rank"]
    if len(tensor.dims) > rank or any(dim < 0 for dim in tensor.dims):
        return f"Weight {tensor.name[:120]!r} has the shape {tensor.dims[:rank]}."
    if not tensor.external and tensor.count > 4 * max(tensor.stored, 1):  # four 2-bit values fit a byte
        return (
            f"Weight {tensor.name[:120]!r} says it has {tensor.count} values, but {tensor.stored} bytes or values are "
            "there."
        )
    return None


def _check_opset(model: OnnxModel, findings: Findings) -> None:
    oldest, newest = tables.table()["onnx"]["opsets"]
    bodies = (model.graph, *model.functions.values())
    if not model.opset and model.opsets and all(domain not in STANDARD for body in bodies for domain, _ in body.calls):
        return  # nothing but operators of other domains
    if not oldest <= model.opset <= newest:
        findings.refuse(
            "schema_version_unsupported",
            f"The model uses ONNX opset {model.opset}; {oldest} to {newest} are read. Export it with opset_version=20, "
            "or convert it with onnx.version_converter.",
        )


def _operators(model: OnnxModel, findings: Findings) -> tuple[Operator, ...]:
    """The operators with their counts, functions of the file written out."""
    known, limit = tables.onnx_operators(), tables.table()["onnx"]["max_nodes"]
    memory: dict[Call, Counter[Call]] = {}
    try:
        calls = _written_out(model.graph, model.functions, memory, ())
        largest = max(
            [calls.total(), *(_function(key, model.functions, memory, ()).total() for key in model.functions)]
        )
    except Refused as refused:
        findings.problems.append(refused.problem)
        calls, largest = model.graph.calls, 0
    if largest > limit:
        findings.refuse("archive_too_large", f"The model's functions write out to {largest} nodes.")
    named: Counter[str] = Counter()
    for (domain, name), count in calls.items():
        named[f"{domain}.{name}" if domain not in ("", "ai.onnx") else name] += count
    return tuple(Operator(name=name, count=count, supported=name in known) for name, count in named.most_common())


def _written_out(
    body: Body, functions: Mapping[Call, Body], memory: dict[Call, Counter[Call]], path: tuple[Call, ...]
) -> Counter[Call]:
    total: Counter[Call] = Counter()
    for call, count in body.calls.items():
        if call not in functions:
            total[call] += count
            continue
        for inner, often in _function(call, functions, memory, path).items():
            total[inner] += count * often
    return total


def _function(
    key: Call, functions: Mapping[Call, Body], memory: dict[Call, Counter[Call]], path: tuple[Call, ...]
) -> Counter[Call]:
    if key in path or len(path) > _MAX_CALLS:
        raise Refused("graph_invalid", f"The function {key[1][:80]!r} of the model calls itself.")
    if key not in memory:
        memory[key] = _written_out(functions[key], functions, memory, (*path, key))
    return memory[key]


def _check_types(model: OnnxModel, findings: Findings) -> None:
    onnx: dict[str, Any] = tables.table()["onnx"]
    dtypes, names = onnx["dtypes"], onnx["types"]
    for tensor in [*model.initializers, *model.constants]:
        if str(tensor.type) not in dtypes and tensor.type not in onnx["constants"]:
            kind = names.get(str(tensor.type), "UNDEFINED")
            detail = _STRINGS if kind == "STRING" else f"Weight {{name}} is of type {kind}."
            findings.refuse("unsupported_input", detail.format(name=repr(tensor.name[:120])))
            break
    for value in model.inputs:
        if str(value.type) not in dtypes:
            findings.refuse("unsupported_input", f"Input {value.name[:80]!r} is not a tensor of a known type.")
