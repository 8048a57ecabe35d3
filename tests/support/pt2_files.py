"""Real ``.pt2`` files, and the means to spoil them one entry at a time."""

import io
import json
import math
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim

from worker.engine.formats.lift import quiet_export


def save(module: nn.Module, inputs: tuple[torch.Tensor, ...], path: Path) -> Path:
    """Export with a dynamic batch and save as stock PyTorch does."""
    shapes = tuple({0: Dim.DYNAMIC} for _ in inputs)
    torch.export.save(quiet_export(module, inputs, shapes), path)
    return path


def entries(path: Path) -> dict[str, bytes]:
    """The entries of an archive, the top folder taken off where there is one."""
    with zipfile.ZipFile(path) as archive:
        return {info.filename.partition("/")[2] or info.filename: archive.read(info) for info in archive.infolist()}


def rebuild(content: dict[str, bytes], path: Path, compression: int = zipfile.ZIP_STORED) -> Path:
    """Write entries as an archive again."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(f"model/{name}", data)
    return path


def edit_json(path: Path, entry: str, change: Callable[[Any], object], target: Path) -> Path:
    """A copy of the archive in which `change` was applied to the JSON of one entry."""
    content = entries(path)
    document = json.loads(content[entry])
    change(document)
    content[entry] = json.dumps(document).encode()
    return rebuild(content, target)


class Payload:
    """Unpickling this creates the file `marker`: the proof that code ran."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def payload(marker: Path) -> bytes:
    """A pickle that creates `marker` when loaded."""
    return pickle.dumps(Payload(marker))


def torch_payload(marker: Path) -> bytes:
    """The same as `torch.save` writes it."""
    buffer = io.BytesIO()
    torch.save(Payload(marker), buffer)
    return buffer.getvalue()


class Stored:
    """Memory of a tensor, as a pickle of `torch.save` refers to it."""

    def __init__(self, key: Any, count: int, kind: Any = torch.FloatStorage, tag: str = "storage"):
        self.reference = (tag, kind, key, "cpu", count)


class Rebuilt:
    """Pickled as a call of `function` with `arguments`, by default the one that makes a tensor of a `Stored`."""

    def __init__(self, *arguments: Any, function: Any = torch._utils._rebuild_tensor_v2):
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def tensor(key: str, *size: int, **changes: Any) -> Rebuilt:
    """A float32 tensor of record `key`; `changes` spoil its description."""
    given: dict[str, Any] = {"count": math.prod(size), "offset": 0, "size": size, "stride": (), "kind": None} | changes
    stride = given["stride"] or tuple(math.prod(size[axis + 1 :]) for axis in range(len(size)))
    stored = Stored(key, given["count"], given["kind"] or torch.FloatStorage)
    return Rebuilt(stored, given["offset"], given["size"], stride, False, OrderedDict())


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: object) -> Any:
        return value.reference if isinstance(value, Stored) else None


def pickled(value: object, protocol: int = 2) -> bytes:
    """The pickle of `value`, in which `Stored` is a persistent id."""
    buffer = io.BytesIO()
    _Pickler(buffer, protocol).dump(value)
    return buffer.getvalue()


def saved(data: bytes, records: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A `torch.save` archive of the pickle `data`; `records` by their keys, or by a name such as ``/byteorder``."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data)
        for key, content in records.items():
            archive.writestr(f"archive/data/{key}" if "/" not in key else f"archive{key}", content)
    return buffer.getvalue()
