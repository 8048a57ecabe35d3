"""Tables whose footer, pages and types lie."""

import struct

import numpy as np
import pyarrow as pa

from tests.support.hostile import good
from tests.support.hostile.case import ACCEPTED, Group, Make, always

PARQUET = Group("parquet")
DAMAGED = "file_damaged"
COLUMN = "dataset_column_invalid"
FEW = "dataset_too_few_samples"
FINITE = "dataset_not_finite"
LARGE = "archive_too_large"
UNKNOWN = "unknown_format"


def table(column: object, name: str = "x", **options: object) -> Make:
    """A ``.parquet`` of one column."""
    return lambda canary: good.parquet(pa.table({name: column}), **options)


def replaced(old: bytes, new: bytes, count: int = -1, **options: object) -> Make:
    """A good ``.parquet`` with some bytes replaced by as many others."""

    def make(canary: object) -> bytes:
        data = good.parquet(pa.table({"x": np.zeros(100_000)}), compression="zstd", use_dictionary=False, **options)
        assert old in data
        return data.replace(old, new, count)

    return make


def footer(length: int, thrift: bytes = b"") -> Make:
    """A footer of this many bytes, or so it says."""
    return always(b"PAR1" + bytes(64) + thrift + struct.pack("<I", length % 2**32) + b"PAR1")


def zigzag(value: int) -> bytes:
    """A number as Thrift's compact form has it."""
    value, made = value << 1, bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])


for _name, _length in {"zero": 0, "one": 1, "beyond": 10_000, "31-bits": 2**31 - 1, "32-bits": -1}.items():
    PARQUET.tensors(f"footer-{_name}", footer(_length), DAMAGED)
_THRIFT = {
    "list-of-billions": b"\x15\x02\x19\xfc\xff\xff\xff\xff\x07",
    "string-of-billions": b"\x15\x02\x48\xff\xff\xff\xff\x07",
    "deep-structs": b"\x1c" * 100_000,
    "deep-lists": b"\x19\x19" * 50_000,
    "endless-varint": b"\x15" + b"\xff" * 1000,
    "map-of-billions": b"\x1b\xff\xff\xff\xff\x07\x88",
    "noise": bytes(range(256)) * 40,
}
for _name, _thrift in _THRIFT.items():
    PARQUET.tensors(f"thrift-{_name}", footer(len(_thrift), _thrift), DAMAGED)
_ROWS = zigzag(100_000)
PARQUET.tensors("rows-more", replaced(_ROWS, zigzag(900_000)), DAMAGED, LARGE, ACCEPTED)
PARQUET.tensors("rows-fewer", replaced(_ROWS, zigzag(20_000)), DAMAGED, ACCEPTED, COLUMN)
PARQUET.tensors("rows-in-pages-more", replaced(_ROWS, zigzag(900_000), 1), DAMAGED, ACCEPTED)
for _codec in ("snappy", "gzip", "brotli", "lz4", "zstd"):
    for _name, _size in {"bomb": 2**20 * 100, "larger": 900_000, "smaller": 700_000}.items():

        def _page(canary: object, codec: str = _codec, size: int = _size) -> bytes:
            """A page that says another size than it unpacks to."""
            data = good.parquet(
                pa.table({"x": np.zeros(100_000, np.int64)}),
                compression=codec,
                use_dictionary=False,
                data_page_size=2**30,
                column_encoding="PLAIN",
                write_statistics=False,
            )
            return resized(data, size)

        PARQUET.tensors(f"page-{_codec}-{_name}", _page, DAMAGED, COLUMN, FINITE)


def resized(data: bytes, size: int) -> bytes:
    """The first page's size once unpacked replaced; a longer number moves what is behind it."""
    at = 7  # PAR1, then field 1 (type of page: 2 bytes), field 2's head
    end = at
    while data[end] & 0x80:
        end += 1
    return data[:at] + zigzag(size) + data[end + 1 :]


_COLUMNS = {
    "strings": pa.array(["a"] * 8),
    "objects": pa.array([{"a": 1}] * 8),
    "bytes": pa.array([b"\x80\x04."] * 8),
    "nulls": pa.array([None] * 8),
    "some-nulls": pa.array([1.0, None] * 4),
    "null-lists": pa.array([[1.0], None] * 4),
    "nulls-in-lists": pa.array([[1.0, None]] * 8),
    "ragged": pa.array([[1.0], [1.0, 2.0]] * 4),
    "empty-lists": pa.array([[]] * 8, pa.list_(pa.float32())),
    "nan": pa.array([float("nan")] * 8),
    "dates": pa.array([0] * 8, pa.timestamp("ns")),
    "decimals": pa.array([1] * 8, pa.decimal128(38)),
    "maps": pa.array([[("a", 1)]] * 8, pa.map_(pa.string(), pa.int64())),
    "unions": pa.array([0.0] * 8, pa.float16()),
    "durations": pa.array([0] * 8, pa.duration("s")),
    "deep-lists": pa.array([[[[[[[[[[1.0]]]]]]]]]] * 8),
    "no-rows": pa.array([], pa.float32()),
    "wide": pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(80_000)), 10_000),
}
for _name, _column in _COLUMNS.items():
    _said = {"unions": (ACCEPTED,), "deep-lists": (ACCEPTED,), "wide": (ACCEPTED,)}.get(
        _name, (COLUMN, FINITE, FEW, DAMAGED)
    )
    PARQUET.tensors(f"column-of-{_name}", table(_column), *_said)


def extended(name: str, storage: pa.Array, metadata: bytes) -> Make:
    """A column that says it is an extension of Arrow's."""
    field = pa.field("x", storage.type, metadata={"ARROW:extension:name": name, "ARROW:extension:metadata": metadata})
    return lambda canary: good.parquet(pa.Table.from_arrays([storage], schema=pa.schema([field])))


_LISTS = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(32)), 4)
_EXTENSIONS = {
    "shape-lies": ("arrow.fixed_shape_tensor", b'{"shape": [1000000, 1000000]}'),
    "shape-negative": ("arrow.fixed_shape_tensor", b'{"shape": [-2, -2]}'),
    "shape-deep": ("arrow.fixed_shape_tensor", b'{"shape": ' + b"[" * 50_000),
    "permutation": ("arrow.fixed_shape_tensor", b'{"shape": [2, 2], "permutation": [7, 9]}'),
    "permutation-twice": ("arrow.fixed_shape_tensor", b'{"shape": [2, 2], "permutation": [0, 0]}'),
    "not-json": ("arrow.fixed_shape_tensor", b"\xff"),
    "empty": ("arrow.fixed_shape_tensor", b""),
    "pickled": ("arrow.py_extension_type", b"\x80\x04cos\nsystem\n."),
    "unknown": ("evil.type", b"x"),
    "overflow": ("arrow.fixed_shape_tensor", b'{"shape": [4294967296, 4294967296]}'),
    "zero": ("arrow.fixed_shape_tensor", b'{"shape": [0]}'),
}
for _name, (_type, _metadata) in _EXTENSIONS.items():
    PARQUET.tensors(f"extension-{_name}", extended(_type, _LISTS, _metadata), DAMAGED, COLUMN, ACCEPTED, FEW)
PARQUET.tensors(
    "schema-of-arrow-is-noise",
    lambda c: good.parquet(pa.table({"x": np.zeros(8)}).replace_schema_metadata({"ARROW:schema": "!" * 100})),
    ACCEPTED,
    DAMAGED,
)
PARQUET.tensors(
    "metadata-huge",
    lambda c: good.parquet(pa.table({"x": np.zeros(8)}).replace_schema_metadata({"k": "v" * 20_000_000})),
    ACCEPTED,
    DAMAGED,
)
PARQUET.tensors("300-columns", lambda c: good.parquet(pa.table({f"c{i}": [0.0] for i in range(300)})), COLUMN)
PARQUET.tensors(
    "names-twice", lambda c: good.parquet(pa.Table.from_arrays([pa.array([1.0])] * 2, names=["x", "x"])), COLUMN
)
PARQUET.tensors("name-of-newlines", table(pa.array([1.0] * 8), "a\nb"), COLUMN)
PARQUET.tensors("many-row-groups", table(pa.array(np.zeros(2000)), row_group_size=1), ACCEPTED)
PARQUET.tensors("encrypted-footer", lambda c: b"PARE" + good.parquet()[4:-4] + b"PARE", UNKNOWN)
