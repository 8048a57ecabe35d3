"""What the service says to a folder of transformers: config.json and safetensors, in an archive or as it is."""

import json
import math
from dataclasses import dataclass, field
from typing import Any, Final

from modelpress.inspection import tables
from modelpress.inspection.report import Findings, Refused, is_float, itemsize
from modelpress.inspection.stream import Damaged, Stream

_MAX_JSON: Final = 64 << 20
_MAX_HEADER: Final = 100 << 20
_CODE: Final = "unsupported_architecture"
_SINGLE: Final = "model.safetensors"
_DTYPES: Final = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8",
    "U16": "uint16", "U32": "uint32", "U64": "uint64", "BOOL": "bool",
}  # fmt: skip
_READ: Final = {_DTYPES[name] for name in ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")}
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
    _check_architecture(config, findings)
    _check_weights(folder, findings)


def _json(folder: Folder, name: str) -> dict[str, Any]:
    try:
        found = json.loads(folder.texts[name])
        if not isinstance(found, dict):
            raise TypeError("no object")
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise Refused("schema_invalid", f"{name!r} is not what transformers writes: {error}"[:300]) from error
    return found


def _check_architecture(config: dict[str, Any], findings: Findings) -> None:
    """The class must be one of the installed transformers, on top of a model that is read."""
    if config.get("quantization_config"):
        findings.refuse(_CODE, "The model is already quantized. Upload the one that it was made from.")
        return
    known, kind, name = tables.architectures(), str(config.get("model_type")), next(iter(findings.architectures), "")
    if known and kind not in known:
        remote = " It comes with code of its own, which is never run." if config.get("auto_map") else ""
        findings.refuse(
            _CODE,
            f"Models of type {kind[:80]!r} are not read as folders.{remote} Export the model to ONNX or .pt2 and "
            f"upload that. Read are: {', '.join(sorted(known))}.",
        )
    elif known and name and not name.endswith((*tables.heads(), "Model")):
        findings.refuse(
            _CODE,
            f"The class {name[:80]!r} is not read for models of type {kind!r}. Read are those that end with "
            f"{', '.join(sorted(tables.heads()))}.",
        )


def _check_weights(folder: Folder, findings: Findings) -> None:
    """Every shard that the index lists must be there."""
    wanted = [_SINGLE]
    if _SINGLE not in folder.names and _INDEX in folder.texts:
        places = _json(folder, _INDEX).get("weight_map")
        wanted = sorted({str(name) for name in places.values()}) if isinstance(places, dict) else []
    missing = [name for name in wanted if name not in folder.names]
    if missing:
        findings.refuse(
            "file_incomplete", f"The archive lacks {missing[0][:120]!r}. Save the model again with save_pretrained()."
        )
    foreign = {one["dtype"] for tensors in folder.tensors.values() for one in tensors.values()} - _READ
    if foreign:
        findings.refuse(
            "unsupported_input",
            f"Weights are of type {', '.join(sorted(foreign))}; upload the model before it was quantized.",
        )
