"""The dictionary of tensors in a `torch.save` archive, as ``.pt2`` files before PyTorch 2.9 keep their weights.

`torch.load` is not used, nor `pickle`: the pickle of the archive is read by `pickle_machine`, in which a tensor is
rebuilt by the functions below and by nothing else. Decision 0008 says why it may be read at all.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from worker.engine.errors import InvalidModel, Unsupported
from worker.engine.formats import codes, pickle_machine
from worker.engine.formats.archive import Archive
from worker.engine.formats.pickle_machine import Calls, Name, broken, refusal
from worker.engine.formats.weights import DTYPES, read_record, strided

_STORAGES: Final[dict[str, torch.dtype]] = {
    "torch.ByteStorage": torch.uint8,
    "torch.CharStorage": torch.int8,
    "torch.ShortStorage": torch.int16,
    "torch.IntStorage": torch.int32,
    "torch.LongStorage": torch.int64,
    "torch.HalfStorage": torch.float16,
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.ComplexFloatStorage": torch.complex64,
    "torch.ComplexDoubleStorage": torch.complex128,
    "torch.BoolStorage": torch.bool,
    "torch.BFloat16Storage": torch.bfloat16,
}
#: The storage of types that came later; the tensor names its type.
_UNTYPED: Final = "torch.storage.UntypedStorage"
_TYPES: Final[dict[str, torch.dtype]] = {str(dtype): dtype for dtype in DTYPES.values()}
_MARKERS: Final = frozenset((*_STORAGES, _UNTYPED, *_TYPES, "torch.Tensor"))
_KEY: Final = re.compile(r"\d{1,9}", re.ASCII)


def read_pickled_tensors(archive: Archive, entry: str) -> dict[str, Tensor]:
    """The tensors of the archive that lies in `entry` of `archive`; keys are fully qualified names.

    Those that are one memory in the file are one memory here.

    Raises:
        UnsafeFile: anything but tensors is pickled in it.
        InvalidModel: damaged, or tensors that do not fit what is stored.
        Unsupported: tensors that are not plain numbers in a row.
    """
    if entry not in archive.entries or archive.entries[entry].size == 0:
        return {}
    inner = archive.inside(entry)
    if "byteorder" in inner.entries and inner.text("byteorder") != b"little":
        raise Unsupported(codes.UNSUPPORTED_INPUT, f"{entry!r} was written on a machine of another byte order.")
    tensors = _Reader(inner, entry).read()
    if not isinstance(tensors, dict):
        raise broken(f"{entry!r} is not a dictionary")
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise refusal(name)
    return tensors


@dataclass(frozen=True)
class _Storage:
    """The memory of tensors: an entry of the archive, as `count` numbers of a type; type None: bytes."""

    entry: str
    dtype: torch.dtype | None
    count: int


class _Reader:
    """Rebuilds what one pickle describes."""

    def __init__(self, archive: Archive, entry: str) -> None:
        self.archive = archive
        self.entry = entry
        self.records: dict[tuple[str, torch.dtype], Tensor] = {}

    def read(self) -> object:
        calls: Calls = {
            "collections.OrderedDict": _dictionary,
            "torch._utils._rebuild_tensor_v2": self.tensor,
            "torch._utils._rebuild_tensor_v3": self.tensor_of_type,
            "torch._utils._rebuild_parameter": _parameter,
            "torch._utils._rebuild_parameter_with_state": _parameter,
            "torch._tensor._rebuild_from_type_v2": self.tensor_with_state,
        }
        return pickle_machine.run(self.archive.view("data.pkl"), calls, _MARKERS, self.storage)

    def storage(self, given: object) -> _Storage:
        match given:
            case ("storage", Name(kind), str(key), str(), int(count)) if kind in _STORAGES or kind == _UNTYPED:
                if _KEY.fullmatch(key):
                    return _Storage(f"data/{key}", _STORAGES.get(kind), count)
        raise broken("a tensor is not in the archive")

    def tensor(self, arguments: tuple[object, ...]) -> Tensor:
        """``_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata])``."""
        match arguments:
            case (
                _Storage(dtype=torch.dtype() as dtype) as storage,
                int(at),
                tuple(sizes),
                tuple(strides),
                _,
                _,
                *rest,
            ):
                return self.view(storage, dtype, at, sizes, strides, rest)
        raise broken("a tensor is described in an unknown way")

    def tensor_of_type(self, arguments: tuple[object, ...]) -> Tensor:
        """``_rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype[, metadata])``."""
        match arguments:
            case (_Storage(dtype=None) as storage, int(at), tuple(sizes), tuple(strides), _, _, Name(kind), *rest):
                if kind in _TYPES:
                    return self.view(storage, _TYPES[kind], at, sizes, strides, rest)
        raise broken("a tensor is described in an unknown way")

    def tensor_with_state(self, arguments: tuple[object, ...]) -> Tensor:
        """``_rebuild_from_type_v2(function, type, arguments, attributes)``: attributes of a tensor are left out."""
        match arguments:
            case (Name("torch._utils._rebuild_tensor_v2"), Name("torch.Tensor"), tuple(inner), _):
                return self.tensor(inner)
            case (Name("torch._utils._rebuild_tensor_v3"), Name("torch.Tensor"), tuple(inner), _):
                return self.tensor_of_type(inner)
        raise refusal("a subclass of torch.Tensor")

    def view(
        self,
        storage: _Storage,
        dtype: torch.dtype,
        offset: int,
        sizes: tuple[object, ...],
        strides: tuple[object, ...],
        metadata: Sequence[object],
    ) -> Tensor:
        if any(metadata):  # {"conj": True} or {"neg": True}: other numbers than those stored
            raise Unsupported(codes.UNSUPPORTED_INPUT, "The model holds weights that are conjugated or negated views.")
        flat = self.record(storage, dtype)
        return strided(storage.entry, flat, _integers(sizes), _integers(strides), offset)

    def record(self, storage: _Storage, dtype: torch.dtype) -> Tensor:
        key = (storage.entry, dtype)
        if key not in self.records:
            self.records[key] = read_record(self.archive, storage.entry, dtype)
        flat = self.records[key]
        if flat.nbytes != storage.count * (storage.dtype or torch.uint8).itemsize:
            raise InvalidModel(
                codes.WEIGHTS_INVALID,
                f"{storage.entry!r} in {self.entry!r} has {flat.nbytes} bytes, not {storage.count} numbers.",
            )
        return flat


def _integers(values: tuple[object, ...]) -> list[int]:
    numbers = [value for value in values if isinstance(value, int)]
    if len(numbers) != len(values):
        raise broken("the shape of a tensor is not of numbers")
    return numbers


def _dictionary(arguments: tuple[object, ...]) -> dict[str, object]:
    """``OrderedDict()``; its entries follow."""
    if arguments:
        raise broken("a dictionary is made of something")
    return {}


def _parameter(arguments: tuple[object, ...]) -> Tensor:
    """``_rebuild_parameter(data, requires_grad, hooks[, attributes])``: the graph says what is trainable."""
    match arguments:
        case (Tensor() as data, _, _) | (Tensor() as data, _, _, _):
            return data
    raise broken("a parameter without its tensor")
