"""A model repository of Triton: https://github.com/triton-inference-server/server/blob/main/docs/user_guide."""

import json
from collections.abc import Iterable, Sequence
from typing import Final

from app.artifacts.packages.subject import Subject
from app.artifacts.packages.tensors import Tensor
from app.web.archive import Entry

#: Requests that Triton may run together, where the model takes any number of samples.
MAX_BATCH_SIZE: Final = 64


def entries(subject: Subject, root: str = "") -> list[Entry]:
    """``NAME/config.pbtxt``, ``NAME/VERSION/`` with the model; Triton passes over folders that are no numbers."""
    folder = f"{root}{subject.name}"
    return [
        Entry(f"{folder}/config.pbtxt", config(subject).encode()),
        *subject.provenance(folder),
        *(Entry(f"{folder}/{subject.version}/{name}", piece) for name, piece in subject.files.items()),
    ]


def config(subject: Subject) -> str:
    """``config.pbtxt``: a ``ModelConfig`` in protobuf's text format."""
    tensors = subject.tensors
    lines = [
        f"name: {_quoted(subject.name)}",
        f"backend: {_quoted(subject.backend)}",
        f"max_batch_size: {MAX_BATCH_SIZE if tensors.batched else 0}",
        *_tensors("input", tensors.inputs, tensors.batched),
        *_tensors("output", tensors.outputs, tensors.batched),
        *(["dynamic_batching { }"] if tensors.batched else []),
        *_warmup(tensors.inputs, tensors.batched),
    ]
    return "\n".join(lines) + "\n"


def _tensors(kind: str, tensors: Iterable[Tensor], batched: bool) -> list[str]:
    lines = []
    for tensor in tensors:
        dims = tensor.shape[1:] if batched else tensor.shape
        # Triton wants a dimension where a sample has none.
        shape = f"dims: {_list(dims)}" if dims else "dims: [ 1 ] reshape: { shape: [ ] }"
        lines.append(f"{kind} {{ name: {_quoted(tensor.name)} data_type: {tensor.type} {shape} }}")
    return lines


def _warmup(inputs: Sequence[Tensor], batched: bool) -> list[str]:
    """One sample of zeros before the first request, where its sizes are known."""
    shapes = [tensor.shape[1:] if batched else tensor.shape for tensor in inputs]
    if any(-1 in shape or not shape for shape in shapes):
        return []
    samples = " ".join(
        f"inputs {{ key: {_quoted(tensor.name)} "
        f"value {{ data_type: {tensor.type} dims: {_list(shape)} zero_data: true }} }}"
        for tensor, shape in zip(inputs, shapes, strict=True)
    )
    return [f'model_warmup {{ name: "zeros" batch_size: {int(batched)} {samples} }}']


def _list(sizes: Iterable[int]) -> str:
    return f"[ {', '.join(map(str, sizes))} ]"


def _quoted(value: str) -> str:
    """JSON's escapes are among those of the text format."""
    return json.dumps(value, ensure_ascii=False)
