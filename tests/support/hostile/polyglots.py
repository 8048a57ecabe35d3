"""Files that are two things at once, none, or another one than they say."""

import base64
import gzip
import random
import struct
import zlib

from tests.support.hostile import good
from tests.support.hostile.case import ACCEPTED, Group, always
from tests.support.hostile.rawzip import Entry, npz_entries, pt2_entries, raw_zip
from tests.support.pt2_files import payload, torch_payload

POLYGLOTS = Group("polyglots")


def _entries(content: dict[str, bytes]) -> list[Entry]:
    return [Entry(name.encode(), data) for name, data in content.items()]


UNKNOWN, DAMAGED, UNSAFE, BAD = "unknown_format", "file_damaged", "unsafe_format", "dataset_text_invalid"
ANY_DATA = (UNKNOWN, DAMAGED, "file_incomplete", "dataset_column_invalid", "dataset_too_few_samples")

_GOOD = {
    "pt2": good.pt2(),
    "onnx": good.onnx_file(),
    "onnx-zip": good.zip_of(good.onnx_bundle()),
    "npz": good.npz(),
    "safetensors": good.safetensors_file(),
    "parquet": good.parquet(),
    "jsonl": good.jsonl(),
    "tar": good.tar_of(good.onnx_bundle()),
}
for _name, _data in _GOOD.items():
    if _name not in ("pt2", "onnx", "onnx-zip", "tar"):
        POLYGLOTS.model(f"{_name}-for-a-model", always(_data), UNKNOWN)
    if _name not in ("npz", "safetensors", "parquet"):
        POLYGLOTS.tensors(f"{_name}-for-tensors", always(_data), *ANY_DATA, UNSAFE)
    if _name != "jsonl":
        POLYGLOTS.text(f"{_name}-for-text", always(_data), BAD)
POLYGLOTS.model("onnx-then-zip", lambda c: good.onnx_file() + raw_zip(pt2_entries(), prefix=b""), UNKNOWN, DAMAGED)
POLYGLOTS.model("zip-then-onnx", lambda c: good.pt2() + good.onnx_file(), DAMAGED)
POLYGLOTS.model("pickle-then-zip", lambda c: payload(c) + good.pt2(), UNSAFE)
POLYGLOTS.model("zip-then-pickle", lambda c: good.pt2() + payload(c), DAMAGED)
POLYGLOTS.model(
    "tar-with-a-pickle-for-a-name", lambda c: good.tar_of({"\x80\x04.": b"x", **good.onnx_bundle()}), ACCEPTED, UNSAFE
)
POLYGLOTS.model("tar-then-zip", lambda c: good.tar_of(good.onnx_bundle()) + good.pt2(), ACCEPTED, DAMAGED)
POLYGLOTS.model("pickle-in-a-tar", lambda c: good.tar_of({"data.pkl": payload(c)}), UNSAFE)
POLYGLOTS.model("torch-save-in-a-tar", lambda c: good.tar_of({"m.pt": torch_payload(c)}), UNSAFE)
POLYGLOTS.model("torch-save-called-onnx-in-a-zip", lambda c: good.zip_of({"m.onnx": torch_payload(c)}), DAMAGED)
POLYGLOTS.model(
    "pickle-called-onnx-in-a-zip", lambda c: good.zip_of({"m.onnx": payload(c)}), DAMAGED, "file_incomplete"
)
POLYGLOTS.model("pt2-and-onnx-in-a-zip", lambda c: raw_zip([*pt2_entries(), *_entries(good.onnx_bundle())]), ACCEPTED)
POLYGLOTS.model(
    "pt2-and-transformers-in-a-zip",
    lambda c: raw_zip([*pt2_entries(), *_entries(good.transformers_folder())]),
    ACCEPTED,
)
POLYGLOTS.model(
    "pt2-and-torchscript-in-a-zip",
    lambda c: raw_zip([*pt2_entries(), *_entries({"code/__torch__.py": b"import os", "data.pkl": payload(c)})]),
    ACCEPTED,
)
POLYGLOTS.model(
    "two-pt2-in-a-zip",
    lambda c: raw_zip([*pt2_entries(), *_entries({"models/other.json": b"{}"})]),
    ACCEPTED,
    "schema_invalid",
    "file_incomplete",
)
POLYGLOTS.model("zip-in-a-zip", lambda c: good.zip_of({"model.pt2": good.pt2()}), UNKNOWN)
POLYGLOTS.model("gzip-of-a-pt2", lambda c: gzip.compress(good.pt2()), UNKNOWN)
POLYGLOTS.model("gzip-of-a-gzip-of-a-tar", lambda c: gzip.compress(good.tar_of(good.onnx_bundle(), "w:gz")), UNKNOWN)
POLYGLOTS.model("zlib-of-a-pickle", lambda c: zlib.compress(payload(c)), UNKNOWN)
POLYGLOTS.model("base64-of-a-pickle", lambda c: base64.b64encode(payload(c)), UNKNOWN)
POLYGLOTS.model("onnx-twice", lambda c: good.onnx_file() * 2, "graph_invalid", ACCEPTED)
POLYGLOTS.tensors("npz-then-parquet", lambda c: good.npz() + good.parquet(), DAMAGED, ACCEPTED, UNKNOWN)
POLYGLOTS.tensors("parquet-then-npz", lambda c: good.parquet() + good.npz() + b"PAR1", DAMAGED)
POLYGLOTS.tensors("parquet-with-a-zip-inside", lambda c: b"PAR1" + raw_zip(npz_entries()) + b"PAR1", DAMAGED)
POLYGLOTS.tensors("safetensors-that-is-a-zip", lambda c: struct.pack("<Q", 2) + b"{}" + good.npz(), *ANY_DATA)
POLYGLOTS.tensors("pickle-then-npz", lambda c: payload(c) + good.npz(), UNSAFE)
POLYGLOTS.tensors("npz-then-pickle", lambda c: good.npz() + payload(c), DAMAGED, ACCEPTED)
POLYGLOTS.text("jsonl-then-zip", lambda c: good.jsonl() + good.npz(), BAD)
_MAGIC = {
    "elf": b"\x7fELF\2\1\1" + bytes(57),
    "script": b"#!/bin/sh\ntouch canary\n",
    "windows": b"MZ" + bytes(62),
    "python": b"import os\nos.system('touch canary')\n",
    "bytecode": b"\xa7\r\r\n" + bytes(60),
    "html": b"<!doctype html><script>1</script>",
    "pdf": b"%PDF-1.7\n",
    "png": b"\x89PNG\r\n\x1a\n" + bytes(60),
    "git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "gguf": b"GGUF" + b"\xff" * 60,
    "tflite": b"\x1c\0\0\0TFL3" + b"\xff" * 60,
    "flatbuffer": b"\x18\0\0\0ORTM" + b"\xff" * 60,
    "rar": b"Rar!\x1a\7\1\0",
    "7z": b"7z\xbc\xaf\x27\x1c",
    "zstd": b"\x28\xb5\x2f\xfd" + bytes(60),
    "npy": b"\x93NUMPY\1\0\xff\xff",
    "arrow": b"ARROW1\0\0" + b"\xff" * 60,
    "sqlite": b"SQLite format 3\0" + bytes(100),
    "utf-16": "hello".encode("utf-16"),
    "one-byte": b"x",
    "zero-byte": b"\0",
    "pickle-start": b"\x80",
    "zip-start": b"PK",
    "zip-magic": b"PK\3\4",
    "gzip-start": b"\x1f\x8b",
    "parquet-start": b"PAR1",
    "parquet-twice": b"PAR1PAR1",
    "brace": b"{",
    "eight-zeros": bytes(8),
    "nine": bytes(8) + b"{",
}
for _name, _data in _MAGIC.items():
    POLYGLOTS.model(f"magic-{_name}", always(_data), UNKNOWN, DAMAGED, UNSAFE)
    POLYGLOTS.tensors(f"magic-{_name}", always(_data), *ANY_DATA, UNSAFE)
POLYGLOTS.model("empty", always(b""), "empty_file")
POLYGLOTS.tensors("empty", always(b""), "empty_file")
for _seed in range(10):
    _noise = random.Random(_seed).randbytes(3000)
    POLYGLOTS.model(f"noise-{_seed}", always(_noise), UNKNOWN, DAMAGED)
    POLYGLOTS.tensors(f"noise-{_seed}", always(_noise), *ANY_DATA)
    POLYGLOTS.text(f"noise-{_seed}", always(_noise), BAD)
