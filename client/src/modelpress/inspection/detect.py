"""What a file is, told from its bytes as the service tells it."""

import re
from collections.abc import Collection
from typing import IO, Final

from modelpress.inspection.report import Refused
from modelpress.inspection.tar import BLOCK, is_tar, is_tgz

CONVERT: Final = """
Where the model runs, with `model` the nn.Module and `example` one of its input tensors with a batch of 2, these
three lines turn it into a file that is accepted:

program = torch.export.export(model.eval(), (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
torch.export.save(program, "model.pt2")
# upload model.pt2
"""
_TAIL: Final = 16
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
_MODEL_PROTO: Final = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
_GRAPH_FIELD: Final = 7
_MAX_FIELDS: Final = 100_000
PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt")
OLD_PT2: Final = "serialized_exported_program.json"


def unsafe(what: str) -> Refused:
    """The refusal of a file that runs code when it is loaded, with the way out."""
    return Refused(
        "unsafe_format",
        f"The file is {what}, which can run any code when it is loaded, so it is never opened.{CONVERT}",
    )


def unknown(what: str) -> Refused:
    """The refusal of a file that is no model."""
    return Refused(
        "unknown_format",
        f"The file is {what}. Models are read as .pt2 (torch.export.save), .onnx, or a zip or tar of a folder of "
        "transformers (config.json and safetensors); save the model as one of them.",
    )


def detect(file: IO[bytes], size: int) -> str:
    """``zip``, ``tar``, ``tgz`` or ``onnx``; raises `Refused` for everything else."""
    if size == 0:
        raise Refused("empty_file", "The file is empty: nothing of it arrived. Upload it again.")
    head = file.read(BLOCK)
    file.seek(max(0, size - _TAIL))
    tail = file.read()
    file.seek(0)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if is_tar(head):
        return "tar"
    if head.startswith(b"\x1f\x8b") and is_tgz(file):
        return "tgz"
    if (head[0] == 0x80 and len(head) > 1 and 1 <= head[1] <= 5) or (
        _TEXT_PICKLE.match(head) and tail.rstrip().endswith(b".")
    ):
        raise unsafe("a Python pickle (.pt, .pth, .pkl or .bin)")
    for magic, what in _KNOWN:
        if head.startswith(magic):
            raise unknown(what)
    if head[4:8] == b"TFL3":
        raise unknown("a TensorFlow Lite model")
    if head[8:10] == b'{"':
        raise unknown("a safetensors file: weights without a network")
    if is_onnx(file, size):
        return "onnx"
    raise unknown("neither a zip archive nor an ONNX model")


def of_archive(names: Collection[str]) -> str:
    """What an archive with these entries is: ``pt2``, ``transformers`` or ``onnx``; raises `Refused` otherwise."""
    if any(name.startswith("models/") and name.endswith(".json") for name in names):
        return "pt2"
    if OLD_PT2 in names or "archive_format" in names:
        return "pt2"
    if "config.json" in names and any(name.endswith(".safetensors") for name in names):
        return "transformers"
    if any(name.startswith("code/") or name == "constants.pkl" for name in names):
        raise unsafe("a TorchScript archive")
    if any(name.endswith(".pkl") for name in names):
        raise unsafe("a torch.save() archive (.pt or .pth), a Python pickle in a zip")
    if any(name.endswith(".onnx") for name in names):
        return "onnx"  # its data may be called weights.bin: they are numbers
    if any(name.endswith(PICKLES) for name in names):
        raise unsafe("a folder with its weights in a Python pickle")
    raise unknown("an archive without a model that is known")


def is_onnx(file: IO[bytes], size: int) -> bool:
    """Whether the file is a sequence of ModelProto fields, one of them a graph."""
    seen: set[int] = set()
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
    file.seek(0)
    return _GRAPH_FIELD in seen


def _varint(data: bytes, start: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(data[start : start + 10]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, start + index + 1
    return 0, 0
