"""What the service says to a folder of transformers: config.json and safetensors, in an archive or as it is."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from modelpress.inspection import tables
from modelpress.inspection.report import Findings, Refused, is_float, itemsize
from modelpress.inspection.stream import Damaged, Stream

_MAX_JSON: Final = 64 << 20
_MAX_HEADER: Final = 100 << 20
_PICKLES: Final = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_DTYPES: Final = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8",
    "U16": "uint16", "U32": "uint32", "U64": "uint64", "BOOL": "bool",
}  # fmt: skip
MAX_RANK: Final = 64
_INDEX: Final = "model.safetensors.index.json"


@dataclass
class Folder:
    """What was read of the files: names, small JSON texts, headers of safetensors."""

    names: set[str] = field(default_factory=set)
    texts: dict[str, bytes] = field(default_factory=dict)
    tensors: dict[str, dict[str, Any]] = field(default_factory=dict)

    def take(self, name: str, stream: Stream, size: int) -> None:
        """Read what matters of a file; `stream` stands at its beginning."""
        self.names.add(name)
        if name in ("config.json", _INDEX) and size <= _MAX_JSON:
            self.texts[name] = stream.read(size)
        elif name.endswith(".safetensors") and "/" not in name:
            self.tensors[name] = header(name, stream, size)


def header(name: str, stream: Stream, size: int) -> dict[str, Any]:
    """The header of a safetensors file: name -> type, shape and place of each tensor."""
    try:
        length = int.from_bytes(stream.read(min(8, size)), "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER):
            raise Damaged("its header is cut off")
        found = json.loads(stream.read(length))
        tensors = {key: _place(value, size - 8 - length) for key, value in found.items() if key != "__metadata__"}
    except (Damaged, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Refused(
            "file_damaged", f"{name[:120]!r} is damaged or cut off ({error}). Upload it again."[:300]
        ) from error
    return tensors


def _place(value: dict[str, Any], size: int) -> dict[str, Any]:
    begin, end = value["data_offsets"]
    shape, dtype = (
        [int(dim) for dim in value["shape"][:MAX_RANK]],
        _DTYPES.get(value["dtype"], str(value["dtype"])[:20]),
    )
    if not 0 <= begin <= end <= size or any(dim < 0 for dim in shape):
        raise Damaged("a tensor lies beyond its end")
    return {"dtype": dtype, "count": math.prod(shape), "bytes": end - begin}


def inspect(folder: Folder, findings: Findings) -> None:
    """Report on a folder that has a config.json."""
    findings.format = "transformers"
    config = _json(folder, "config.json")
    weights = [one for tensors in folder.tensors.values() for one in tensors.values()]
    findings.parameters = sum(one["count"] for one in weights if is_float(one["dtype"]))
    findings.weight_bytes = sum(one["bytes"] or one["count"] * itemsize(one["dtype"]) for one in weights)
    version = config.get("transformers_version")
    findings.producer = f"transformers {version}"[:80] if isinstance(version, str) else None
    kind = config.get("model_type")
    findings.version = f"model_type {kind}"[:80] if isinstance(kind, str) else None
    named = config.get("architectures")
    findings.architectures = tuple(str(name)[:120] for name in named[:20]) if isinstance(named, list) else ()
    _check_weights(folder, findings)
    _check_architecture(config, findings)


def _json(folder: Folder, name: str) -> dict[str, Any]:
    try:
        found = json.loads(folder.texts[name])
        if not isinstance(found, dict):
            raise TypeError("no object")
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise Refused("schema_invalid", f"{name!r} is not what transformers writes: {error}"[:300]) from error
    return found


def _check_weights(folder: Folder, findings: Findings) -> None:
    wanted: Iterable[object] = ()
    if _INDEX in folder.texts:
        places = _json(folder, _INDEX).get("weight_map")
        wanted = {str(name) for name in places.values()} if isinstance(places, dict) else ()
    missing = sorted(str(name) for name in wanted if name not in folder.names)
    if missing:
        findings.refuse("file_incomplete", f"The folder lacks {', '.join(map(repr, missing[:5]))} of {_INDEX}.")
    if folder.tensors:
        return
    pickles = sorted(name for name in folder.names if name.endswith(_PICKLES))
    if pickles:
        findings.refuse(
            "unsafe_format",
            f"The weights are in {pickles[0][:120]!r}, a Python pickle, which can run any code when it is loaded, so "
            "it is never opened. Save them as safetensors: model.save_pretrained('folder', safe_serialization=True)",
        )
    else:
        findings.refuse("file_incomplete", "The folder has no *.safetensors: save it with model.save_pretrained().")


def _check_architecture(config: dict[str, Any], findings: Findings) -> None:
    known = tables.architectures()
    given = {*findings.architectures, str(config.get("model_type"))}
    if not known:
        findings.notes.append(
            "This client does not know which architectures the service reads; it tells at the upload."
        )
    elif not known & given:
        name = next(iter(findings.architectures), config.get("model_type"))
        own = " Its code of its own (auto_map) is never run." if config.get("auto_map") else ""
        findings.refuse(
            "unsupported_architecture",
            f"The architecture {str(name)[:120]!r} is not read.{own} Export the model with torch.export or as ONNX.",
        )
