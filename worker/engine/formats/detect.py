"""What a file is, told from its bytes: names lie."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from worker.engine.errors import InvalidModel, UnsafeFile
from worker.engine.formats import codes
from worker.engine.formats.archive import Archive
from worker.engine.formats.tar import opened

_CONVERT: Final = """
Where the model runs, with `model` the nn.Module and `example` one of its input tensors with a batch of 2, these
three lines turn it into a file that is accepted:

program = torch.export.export(model.eval(), (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
torch.export.save(program, "model.pt2")
# upload model.pt2
"""

_HEAD: Final = 64
_TAIL: Final = 16
#: Files that people upload by mistake, by how they start.
_KNOWN: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\x89HDF", "an HDF5 file (Keras)"),
    (b"GGUF", "a GGUF file"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"PAR1", "a Parquet table"),
    (b"{", "a JSON document"),
    (b"<?xml", "an XML document"),
)
_TEXT_PICKLE: Final = re.compile(rb"(?:[(\]}][dlptq\]]|c[A-Za-z_][\w.]*\n)")
#: Number -> wire type of the fields of ONNX's ModelProto.
_MODEL_PROTO: Final = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
_GRAPH_FIELD: Final = 7
_MAX_FIELDS: Final = 100_000


def unsafe(what: str) -> UnsafeFile:
    """The refusal of a file that runs code when it is loaded, with the way out."""
    return UnsafeFile(f"The file is {what}, which can run any code when it is loaded, so it is never opened.{_CONVERT}")


def detect(path: Path) -> str:
    """The format of `path`: ``pt2``, ``onnx`` or ``transformers``.

    Raises:
        UnsafeFile: a pickle of any kind or TorchScript; the detail says how to convert it.
        InvalidModel: ``empty_file``, ``unknown_format``, or a damaged archive.
    """
    size = path.stat().st_size
    if size == 0:
        raise InvalidModel(codes.EMPTY_FILE, "The file is empty: nothing of it arrived. Upload it again.")
    with path.open("rb") as file:
        head = file.read(_HEAD)
        file.seek(max(0, size - _TAIL))
        tail = file.read()
    archive = opened(path)
    if archive is not None:
        return _detect_archive(archive)
    if (head[0] == 0x80 and len(head) > 1 and 1 <= head[1] <= 5) or (
        _TEXT_PICKLE.match(head) and tail.rstrip().endswith(b".")
    ):
        raise unsafe("a Python pickle (.pt, .pth, .pkl or .bin)")
    for magic, what in _KNOWN:
        if head.startswith(magic):
            raise _unknown(what)
    if head[4:8] == b"TFL3":
        raise _unknown("a TensorFlow Lite model")
    if head[8:10] == b'{"':
        raise _unknown("a safetensors file: weights without a network")
    if _is_onnx(path, size):
        return "onnx"
    raise _unknown("neither a zip archive nor an ONNX model")


def _unknown(what: str) -> InvalidModel:
    return InvalidModel(
        codes.UNKNOWN_FORMAT,
        f"The file is {what}. Models are read as .pt2 (torch.export.save), .onnx, or a zip or tar of a folder of "
        "transformers (config.json and safetensors); save the model as one of them.",
    )


def _detect_archive(archive: Archive) -> str:
    names = archive.entries.keys()
    checks: tuple[tuple[str, Callable[[str], bool]], ...] = (
        ("pt2", lambda name: name.startswith("models/") and name.endswith(".json")),
        ("pt2", lambda name: name in ("serialized_exported_program.json", "archive_format")),
        ("transformers", lambda name: name.endswith(".safetensors") and "config.json" in names),
        ("a TorchScript archive", lambda name: name.startswith("code/") or name == "constants.pkl"),
        (
            "a torch.save() archive (.pt or .pth), a Python pickle in a zip",
            lambda name: name == "data.pkl" or name.endswith(".pkl"),
        ),
        ("onnx", lambda name: name.endswith(".onnx")),  # its data may be called weights.bin: they are numbers
        ("a folder with its weights in a Python pickle", lambda name: name.endswith((".bin", ".pt", ".pth", ".ckpt"))),
    )
    found = next((kind for kind, matches in checks if any(map(matches, names))), None)
    if found is None:
        raise _unknown("an archive without a model that is known")
    if " " in found:
        raise unsafe(found)
    return found


def _is_onnx(path: Path, size: int) -> bool:
    """Whether the file is a sequence of ModelProto fields, one of them a graph."""
    seen: set[int] = set()
    with path.open("rb") as file:
        position = 0
        for _ in range(_MAX_FIELDS):
            if position >= size:
                break
            file.seek(position)
            chunk = file.read(20)
            tag, used = _varint(chunk, 0)
            value, used = _varint(chunk, used)
            if used == 0 or _MODEL_PROTO.get(tag >> 3) != tag & 7:
                return False
            seen.add(tag >> 3)
            position += used + (value if tag & 7 == 2 else 0)
    return _GRAPH_FIELD in seen


def _varint(data: bytes, start: int) -> tuple[int, int]:
    """The number at `start` and where it ends; end 0 where there is none."""
    value = 0
    for index, byte in enumerate(data[start : start + 10]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, start + index + 1
    return 0, 0
