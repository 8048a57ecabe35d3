"""Safetensors whose headers lie, as weights of folders and as datasets; indices that lead elsewhere."""

import json
import struct
from typing import Any

import numpy as np
import safetensors.numpy

from tests.support.hostile import good
from tests.support.hostile.case import ACCEPTED, Group, Make

SAFE = Group("safetensors")
CODE = "__import__('os').system('touch canary')"
SCHEMA = "schema_invalid"
INCOMPLETE = "file_incomplete"
WEIGHTS = "weights_invalid"
DAMAGED = "file_damaged"
INPUT = "unsupported_input"
COLUMN = "dataset_column_invalid"
UNKNOWN = "unknown_format"

Entry = dict[str, Any]


def header_of(tensors: dict[str, Entry] | bytes, size: int, length: int | None = None) -> bytes:
    """A safetensors file with this header, and `size` bytes behind it."""
    text = tensors if isinstance(tensors, bytes) else json.dumps(tensors).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(size)


def both(name: str, data: bytes, model: tuple[str, ...], columns: tuple[str, ...]) -> None:
    """These bytes as the weights of a folder, and as a dataset."""
    SAFE.model(name, lambda c: good.zip_of(good.transformers_folder() | {"model.safetensors": data}), *model)
    SAFE.tensors(name, lambda c: data, *columns)


def entry(shape: object = (4, 4), offsets: object = (0, 64), dtype: object = "F32", **more: object) -> Entry:
    """A tensor in a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


_ODD = (SCHEMA, WEIGHTS, INCOMPLETE)
_WRONG = (DAMAGED, COLUMN, INCOMPLETE)
_LENGTHS = {
    "zero": 0,
    "one": 1,
    "short": 10,
    "beyond": 10**6,
    "4-gib": 2**32,
    "63-bits": 2**63 - 1,
    "64-bits": 2**64 - 1,
    "limit": 100 << 20,
}
for _name, _length in _LENGTHS.items():
    both(
        f"header-length-{_name}",
        header_of({"x": entry()}, 64, _length),
        (DAMAGED, SCHEMA),
        (DAMAGED, INCOMPLETE, UNKNOWN),
    )
_HEADERS = {
    "deep": b'{"x":' * 20_000,
    "deep-lists": b'{"x":' + b"[" * 100_000,
    "list": b"{}  "[::-1],
    "not-utf8": b'{"\xff": 1}',
    "nan": b'{"x": NaN}',
    "empty": b"{}",
    "null-entry": b'{"x": null}',
    "surrogate-name": b'{"\\ud800": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}}',
    "nul-name": b'{"a\\u0000b": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}}',
    "name-twice": b'{"x": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}, '
    b'"x": {"dtype": "F32", "shape": [2, 8], "data_offsets": [0, 64]}}',
    "trailing": b'{"x": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}} {"y": 1}',
    "python": b"{'x': 1}",
    "digits": b'{"x": ' + b"9" * 10_000 + b"}",
    "overflow": b'{"x": 1e999999}',
    "many": json.dumps({f"t{i}": entry([0], [0, 0]) for i in range(40_000)}).encode(),
    "metadata-deep": b'{"__metadata__": {"a":' + b"[" * 50_000,
    "metadata-number": b'{"__metadata__": 7}',
}
for _name, _text in _HEADERS.items():
    both(
        f"header-{_name}",
        header_of(_text, 64),
        (*_ODD, DAMAGED),
        (*_WRONG, UNKNOWN, "dataset_too_few_samples", *([ACCEPTED] if "name" in _name else [])),
    )
_ENTRIES = {
    "shape-huge": entry([2**40, 4]),
    "shape-overflow": entry([2**33, 2**33]),
    "shape-wraps": entry([2**62, 4]),
    "shape-negative": entry([-4, -4]),
    "shape-zero-times-huge": entry([0, 2**47], [0, 0]),
    "shape-largest": entry([2**63 - 1]),
    "shape-beyond": entry([2**64]),
    "shape-text": entry("4"),
    "shape-float": entry([4.0, 4]),
    "shape-true": entry([True, 16]),
    "shape-null": entry(None),
    "shape-deep": entry([[4], [4]]),
    "shape-rank-64": entry([1] * 64, [0, 4]),
    "shape-rank-5000": entry([1] * 5000, [0, 4]),
    "offsets-swapped": entry((4, 4), (64, 0)),
    "offsets-negative": entry((4, 4), (-64, 0)),
    "offsets-beyond": entry((4, 4), (0, 2**40)),
    "offsets-three": entry((4, 4), (0, 64, 64)),
    "offsets-one": entry((4, 4), (0,)),
    "offsets-gap": entry((4, 4), (32, 96)),
    "offsets-text": entry((4, 4), "ab"),
    "offsets-wrap": entry((4, 4), (2**64 - 64, 2**64)),
    "dtype-wide": entry(dtype="F64"),
    "dtype-unknown": entry(dtype="F3"),
    "dtype-number": entry(dtype=7),
    "dtype-list": entry(dtype=["F32"]),
    "dtype-object": entry(dtype={"F32": 1}),
    "dtype-fp4": entry(dtype="F4"),
    "dtype-code": entry(dtype=CODE),
    "no-dtype": {"shape": [4, 4], "data_offsets": [0, 64]},
    "more-keys": entry(extra=1),
    "name-long": entry(),
}
for _name, _entry in _ENTRIES.items():
    _key = "x" * 100_000 if _name == "name-long" else "x"
    both(
        f"entry-{_name}",
        header_of({_key: _entry}, 64),
        (*_ODD, INPUT),
        (*_WRONG, "dataset_too_few_samples", *([ACCEPTED] if _name in ("more-keys", "offsets-gap") else [])),
    )
both("overlapping", header_of({"x": entry(), "y": entry((4, 4), (32, 96))}, 96), (WEIGHTS,), (ACCEPTED, DAMAGED))
both("same-bytes", header_of({"x": entry(), "y": entry()}, 64), (WEIGHTS,), (ACCEPTED, DAMAGED))
both(
    "bytes-behind",
    safetensors.numpy.save(good.bert_weights()) + bytes(1000),
    (ACCEPTED, WEIGHTS, DAMAGED),
    ("dataset_lengths_differ",),
)
both("truth-of-2", header_of({"x": entry([64], dtype="BOOL")}, 0) + b"\2" * 64, (WEIGHTS,), (ACCEPTED, DAMAGED, COLUMN))


def weights(**changes: np.ndarray) -> Make:
    """The tiny BERT with other weights."""
    return lambda c: good.zip_of(
        good.transformers_folder() | {"model.safetensors": safetensors.numpy.save(good.bert_weights() | changes)}
    )


_WORDS = "embeddings.word_embeddings.weight"
SAFE.model("weights-nan", weights(**{_WORDS: np.full((50, 16), np.nan, np.float32)}), WEIGHTS)
SAFE.model("weights-of-another-shape", weights(**{_WORDS: np.zeros((49, 16), np.float32)}), WEIGHTS)
SAFE.model("weights-of-whole-numbers", weights(**{_WORDS: np.zeros((50, 16), np.int64)}), ACCEPTED, WEIGHTS)
SAFE.model(
    "weights-with-code-names", weights(**{CODE: np.zeros(4, np.float32), "../../x": np.zeros(4, np.float32)}), ACCEPTED
)


def index(text: object, **files: bytes) -> Make:
    """A folder with an index of shards."""
    data = text if isinstance(text, bytes) else json.dumps(text).encode()
    folder = {
        "config.json": good.transformers_folder()["config.json"],
        "model.safetensors.index.json": data,
        "a.safetensors": good.transformers_folder()["model.safetensors"],
    }
    return lambda canary: good.zip_of(folder | files)


_INDICES = {
    "up": {"weight_map": {"x": "../../../etc/passwd"}},
    "absolute": {"weight_map": {"x": "/etc/passwd"}},
    "pickle": {"weight_map": {"x": "pytorch_model.bin"}},
    "itself": {"weight_map": {"x": "model.safetensors.index.json"}},
    "missing": {"weight_map": {"x": "b.safetensors"}},
    "other": {"weight_map": {"x": "a.safetensors"}},
    "empty": {"weight_map": {}},
    "list": [],
    "numbers": {"weight_map": {"x": 7}},
    "no-map": {},
    "deep": b"[" * 500_000,
}
for _name, _index in _INDICES.items():
    SAFE.model(f"index-{_name}", index(_index), SCHEMA, INCOMPLETE, DAMAGED, WEIGHTS)
