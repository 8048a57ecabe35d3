"""Arrays whose headers lie, or are Python."""

import io
import struct
import zipfile

import numpy as np

from tests.support.hostile import good
from tests.support.hostile.case import ACCEPTED, Group, Make

NPZ = Group("npz")
DAMAGED = "file_damaged"
COLUMN = "dataset_column_invalid"
UNSAFE = "unsafe_format"
INCOMPLETE = "file_incomplete"
FINITE = "dataset_not_finite"
LENGTHS = "dataset_lengths_differ"
UNKNOWN = "unknown_format"


def npy(header: bytes, data: bytes = b"", version: bytes = b"\1\0", length: int | None = None) -> bytes:
    """A ``.npy`` with this header."""
    size = struct.pack("<H" if version == b"\1\0" else "<I", (len(header) if length is None else length) % 2**32)
    return b"\x93NUMPY" + version + size + header + data


def column(header: str | bytes, data: bytes = b"", method: int = zipfile.ZIP_STORED, **more: object) -> Make:
    """An ``.npz`` of one such array."""
    text = header.encode() if isinstance(header, str) else header
    return lambda canary: good.zip_of(
        {"x.npy": npy(text.replace(b"CANARY", str(canary).encode()), data, **more)}, method
    )


def described(descr: str = "'<f4'", shape: str = "(4,)", fortran: str = "False", more: str = "") -> str:
    """The text of a header."""
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, {more}}}"


def arrays(**values: object) -> Make:
    """What `np.savez` writes."""

    def make(canary: object) -> bytes:
        buffer = io.BytesIO()
        np.savez(buffer, **{name: np.asarray(value) for name, value in values.items()})
        return buffer.getvalue()

    return make


_SIXTEEN = struct.pack("<4f", 1, 2, 3, 4)
_HEADERS = {
    "call": described(shape="(__import__('os').system('touch CANARY'),)"),
    "call-as-type": described("__import__('os').system('touch CANARY')"),
    "lambda": "(lambda: open('CANARY', 'w'))()",
    "f-string": described('f\'{open("CANARY", "w")}\''),
    "comprehension": described(shape="tuple(open('CANARY', 'w') for x in [1])"),
    "deep-tuples": "(" * 4000 + ")" * 4000,
    "deep-lists": "[" * 9000,
    "deep-minus": described(shape="(" + "-" * 5000 + "1,)"),
    "sums": described(shape="(" + "1+" * 4000 + "1,)"),
    "power": described(shape="(9**9**9,)"),
    "complex": described(shape="(1+2j,)"),
    "digits": described(shape="(" + "9" * 5000 + ",)"),
    "string-times": described("'a' * 10**10"),
    "bytes": described(b"'<f4'".decode(), "b'x'"),
    "nul": "{'descr': '<f4'\0}",
    "surrogate": "{'descr': '\\ud800'}",
    "empty": "",
    "not-a-dict": "[1]",
    "set": "{1, 2}",
    "missing-key": "{'descr': '<f4'}",
    "more-keys": described(more="'surprise': 1,"),
    "key-twice": described(more="'shape': (99,),"),
    "unhashable": "{[]: 1}",
    "comment": described() + "# " + "x" * 100,
    "newlines": described().replace(",", ",\n\n\n"),
}
for _name, _header in _HEADERS.items():
    NPZ.tensors(
        f"header-{_name}",
        column(_header, _SIXTEEN),
        DAMAGED,
        COLUMN,
        *([ACCEPTED] if _name in ("more-keys", "comment", "newlines") else []),
    )
_SHAPES = (
    "(2**40,)",
    "(1099511627776,)",
    "(4611686018427387904, 4)",
    "(9223372036854775807,)",
    "(-4,)",
    "(0, 4611686018427387903)",
    "(18446744073709551616,)",
    "(True, 4)",
    "(4.0,)",
    "('4',)",
    "4",
    "[4]",
    "None",
    "()",
    "(2, -2, -1)",
    "(1," * 5 + "4)" + ")" * 4,
    "(" + "1," * 70 + ")",
    "(0,)",
)
for _index, _shape in enumerate(_SHAPES):
    NPZ.tensors(f"shape-{_index}", column(described(shape=_shape), _SIXTEEN), DAMAGED, COLUMN)
_DTYPES = (
    "'|O'",
    "'O'",
    "'<f4,<O'",
    "[('a', '|O')]",
    "[('a', '<f4', (2**40,))]",
    "'<f99'",
    "'|V16'",
    "'|S4'",
    "'<U4'",
    "'<M8[ns]'",
    "'>f4'",
    "'<c8'",
    "'(2,)<f4'",
    "'f4, f4'",
    "'<f4' 'x'",
    "''",
    "None",
    "7",
    "'os.system'",
    "('<f4', {'a': 1})",
    "'<f4[0:9]'",
    "'<g16'",
    "'|b1'",
)
for _index, _dtype in enumerate(_DTYPES):
    NPZ.tensors(f"dtype-{_index}", column(described(_dtype), _SIXTEEN), DAMAGED, COLUMN, UNSAFE)
NPZ.tensors("fortran-not-a-truth", column(described(fortran="__import__('os')"), _SIXTEEN), DAMAGED)
NPZ.tensors("header-length-beyond", column(described(), _SIXTEEN, length=60_000), DAMAGED)
NPZ.tensors("header-length-4-gib", column(described(), _SIXTEEN, version=b"\2\0", length=2**32 - 1), DAMAGED)
NPZ.tensors("version-9", column(described(), _SIXTEEN, version=b"\x09\0"), DAMAGED)
NPZ.tensors("header-of-9-kb", column(described().ljust(9000), _SIXTEEN), ACCEPTED)
NPZ.tensors("nothing-behind-the-magic", lambda c: good.zip_of({"x.npy": b"\x93NUMPY"}), DAMAGED)
NPZ.tensors("empty-entry", lambda c: good.zip_of({"x.npy": b""}), DAMAGED)
NPZ.tensors("truncated-length", lambda c: good.zip_of({"x.npy": b"\x93NUMPY\1\0\x01"}), DAMAGED, INCOMPLETE)
NPZ.tensors("deflated-header-bomb", column(" " * 60_000, b"", zipfile.ZIP_DEFLATED), DAMAGED)
NPZ.tensors("nan", arrays(x=[np.nan] * 8), FINITE)
NPZ.tensors("infinity", arrays(x=[[1.0, -np.inf]] * 8), FINITE)
NPZ.tensors("nan-with-payload", lambda c: arrays(x=np.frombuffer(b"\xde\xad\xff\x7f" * 8, np.float32))(c), FINITE)
NPZ.tensors("scalar", arrays(x=1.0), COLUMN)
NPZ.tensors("lengths-differ", arrays(x=np.zeros(4), y=np.zeros(5)), LENGTHS)
NPZ.tensors("no-columns", arrays(), COLUMN)
NPZ.tensors("300-columns", arrays(**{f"c{i}": np.zeros(4) for i in range(300)}), UNKNOWN)
NPZ.tensors(
    "not-a-column-beside", lambda c: good.zip_of({**good.entries_of(good.npz()), "setup.py": b"import os"}), UNKNOWN
)
NPZ.tensors("truth-of-2", column(described("'|b1'"), b"\2\3\4\xff"), ACCEPTED, COLUMN)
for _name, _column in {
    "empty": "",
    "dots": "..",
    "newline": "a\nb",
    "nul": "a\0b",
    "long": "x" * 1000,
    "code": "__import__('os')",
    "invisible": "a​b",
    "right-to-left": "a‮b",
}.items():
    NPZ.tensors(
        f"column-named-{_name}",
        lambda c, n=_column: good.zip_of({f"{n}.npy": good.entries_of(good.npz())["input.npy"]}),
        COLUMN,
        ACCEPTED,
        DAMAGED,
        UNKNOWN,
    )
