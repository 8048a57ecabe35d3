"""Opening an ONNX file of unknown origin: everything is checked before any of it is used."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from torch import Tensor

from worker.engine.errors import InvalidModel, Unsupported
from worker.engine.formats import codes
from worker.engine.formats.mapped import Mapped
from worker.engine.formats.onnx_reader.bundle import Bundle
from worker.engine.formats.onnx_reader.outline import PLACEHOLDER, outline
from worker.engine.formats.onnx_reader.tensors import NARROW, dtype_of, to_torch
from worker.engine.formats.tar import opened
from worker.engine.formats.weights import refuse_other_truth

MAX_FILE: Final = 2**31 - 1  # what protobuf can hold; larger models keep their weights in files beside it
MAX_NODES: Final = 200_000
MIN_OPSET: Final = 7
MAX_RANK: Final = 16
_STANDARD: Final = ("", "ai.onnx")


@dataclass(frozen=True)
class OnnxSource:
    """What a network read from ONNX came from: the checked file, in outline.

    Attributes:
        outline: the file without its large weights.
        large: name of an initializer -> its bytes, in the map of the file.
        mapped: that map.
        prints: of the weights that a writer takes from here as they are, see `fingerprints`.
    """

    outline: onnx.ModelProto
    large: dict[str, memoryview] = field(default_factory=dict)
    mapped: Mapped | None = None
    prints: dict[str, int] = field(default_factory=dict)

    @property
    def model(self) -> onnx.ModelProto:
        """The whole model in one message, made anew each time: it holds all the weights."""
        whole = onnx.ModelProto()
        whole.CopyFrom(self.outline)
        for tensor in whole.graph.initializer:
            if tensor.name in self.large:
                tensor.raw_data = bytes(self.large[tensor.name])
        return whole

    def tensor(self, proto: onnx.TensorProto) -> Tensor:
        """An initializer as a tensor; a large one lies in the map and may start at an odd address.

        Raises:
            Unsupported: an element type that networks do not have.
            InvalidModel: data that does not fill the shape.
        """
        view = self.large.get(proto.name)
        if view is None:
            return to_torch(proto)
        if proto.data_type in NARROW:
            whole = onnx.TensorProto(name=proto.name, data_type=proto.data_type, dims=proto.dims, raw_data=bytes(view))
            return to_torch(whole)
        dtype = dtype_of(proto)
        if len(view) != math.prod(proto.dims) * dtype.itemsize:
            raise InvalidModel(
                codes.WEIGHTS_INVALID,
                f"Weight {proto.name[:120]!r} of shape {list(proto.dims)} does not fill its {len(view)} bytes.",
            )
        return Mapped.tensor(view, dtype, proto.dims)


def load(path: Path) -> OnnxSource:
    """Parse and check a file: a model, or an archive of one with the files that its weights lie in.

    Raises:
        InvalidModel: too large, damaged, without its external data, or against the ONNX specification.
        Unsupported: an opset or type that is not read.
    """
    archive = opened(path)
    bundle = None if archive is None else Bundle(archive)
    mapped = Mapped.open(path) if bundle is None else bundle.archive.mapped
    data = mapped.data if bundle is None else bundle.model()
    if len(data) > MAX_FILE:
        raise InvalidModel(
            codes.ARCHIVE_TOO_LARGE,
            f"An ONNX file of {len(data)} bytes is beyond the 2 GiB of its format. Save it with its weights in a file "
            "beside it (save_as_external_data=True) and upload both as one zip.",
        )
    model = onnx.ModelProto()
    try:
        small, large = outline(data)
        model.ParseFromString(small)
    except DecodeError as error:
        raise InvalidModel(
            codes.FILE_DAMAGED, f"The ONNX file is damaged or cut off ({error}). Upload it again."
        ) from error
    _check_size(model)
    for tensor, is_own in _all_tensors(model):
        _fetch(tensor, bundle, large if is_own else None)
        _check_tensor(tensor, large.get(tensor.name) if is_own else None)
    _check_opset(model)
    try:
        onnx.checker.check_model(_emptied(model, large))
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise InvalidModel(
            codes.GRAPH_INVALID, f"The model breaks the ONNX specification: {str(error)[:500]}"
        ) from error
    return OnnxSource(model, large, mapped)


def _emptied(model: onnx.ModelProto, large: dict[str, memoryview]) -> onnx.ModelProto:
    """The model with nothing in its large weights, for the checker: it wants as many bytes as the shape says."""
    emptied = onnx.ModelProto()
    emptied.CopyFrom(model)
    for tensor in emptied.graph.initializer:
        if tensor.name in large:
            tensor.ClearField("raw_data")
            tensor.dims[:] = [0]
    return emptied


def _fetch(tensor: onnx.TensorProto, bundle: Bundle | None, large: dict[str, memoryview] | None) -> None:
    """Put the bytes of a tensor that lie in another file where those of the others are.

    Args:
        large: for an initializer of the graph; None: the tensor gets them itself.
    """
    if tensor.data_location != onnx.TensorProto.EXTERNAL and not tensor.external_data:
        return
    if bundle is None:
        raise InvalidModel(
            codes.EXTERNAL_DATA,
            f"Weight {tensor.name[:120]!r} lies in another file. Upload a zip of the .onnx and the files beside it, or "
            "write one file: torch.onnx.export(..., external_data=False), or onnx.save(onnx.load('model.onnx'), "
            "'single.onnx').",
        )
    view = bundle.external({entry.key: entry.value for entry in tensor.external_data}, tensor.name)
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.DEFAULT
    if large is None:
        tensor.raw_data = bytes(view)
        return
    if tensor.name in large:
        raise InvalidModel(codes.GRAPH_INVALID, f"Two weights are called {tensor.name[:120]!r}.")
    large[tensor.name] = view
    tensor.raw_data = PLACEHOLDER


def _graphs(model: onnx.ModelProto) -> list[Any]:
    """The graph and everything with nodes inside of it."""
    found: list[Any] = [model.graph, *model.functions]
    for graph in found:
        for node in graph.node:
            for attribute in node.attribute:
                found += [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else list(attribute.graphs)
        if len(found) > MAX_NODES:
            raise InvalidModel(codes.ARCHIVE_TOO_LARGE, "The model has too many inner graphs.")
    return found


def _check_size(model: onnx.ModelProto) -> None:
    if not model.HasField("graph") or not model.graph.output:
        raise InvalidModel(codes.FILE_INCOMPLETE, "The ONNX file holds no graph with outputs. Export the model again.")
    nodes = sum(len(graph.node) for graph in _graphs(model))
    if nodes > MAX_NODES:
        raise InvalidModel(codes.ARCHIVE_TOO_LARGE, f"The model has {nodes} nodes; at most {MAX_NODES} are read.")


def _all_tensors(model: onnx.ModelProto) -> list[tuple[onnx.TensorProto, bool]]:
    """Every tensor, and whether it is an initializer of the graph itself."""
    tensors: list[tuple[onnx.TensorProto, bool]] = []
    for depth, graph in enumerate(_graphs(model)):
        tensors += [(tensor, depth == 0) for tensor in getattr(graph, "initializer", ())]
        if getattr(graph, "sparse_initializer", ()):
            raise Unsupported(
                codes.UNSUPPORTED_INPUT, "The model has sparse initializers. Export it with dense weights."
            )
        for node in graph.node:
            for attribute in node.attribute:
                held = [attribute.t] if attribute.type == onnx.AttributeProto.TENSOR else attribute.tensors
                tensors += [(tensor, False) for tensor in held]
    return tensors


def _check_tensor(tensor: onnx.TensorProto, outside: memoryview | None) -> None:
    name = tensor.name[:120]
    if len(tensor.dims) > MAX_RANK or any(dim < 0 for dim in tensor.dims):
        raise InvalidModel(codes.WEIGHTS_INVALID, f"Weight {name!r} has the shape {list(tensor.dims)[:MAX_RANK]}.")
    stored = max(len(tensor.raw_data), *(len(getattr(tensor, field)) for field in _FIELDS))
    if outside is not None:
        stored = max(stored, len(outside))
    count = math.prod(tensor.dims)
    if count > 4 * max(stored, 1):  # four 2-bit values fit a byte
        raise InvalidModel(
            codes.WEIGHTS_INVALID,
            f"Weight {name!r} says it has {count} values, but {stored} bytes or values are there.",
        )
    if tensor.data_type == onnx.TensorProto.BOOL:
        refuse_other_truth(f"Weight {name!r}", tensor.raw_data if outside is None else outside)


_FIELDS: Final = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")


def _check_opset(model: onnx.ModelProto) -> None:
    opset = opset_of(model)
    newest = onnx.defs.onnx_opset_version()
    if (
        not opset
        and model.opset_import
        and all(node.domain not in _STANDARD for g in _graphs(model) for node in g.node)
    ):
        return  # nothing but operators of other domains
    if not MIN_OPSET <= opset <= newest:
        raise Unsupported(
            codes.SCHEMA_VERSION,
            f"The model uses ONNX opset {opset}; {MIN_OPSET} to {newest} are read. Export it with opset_version=20, "
            "or convert it with onnx.version_converter.",
        )


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the standard operators; 0 where the file names none."""
    return max((entry.version for entry in model.opset_import if entry.domain in _STANDARD), default=0)
