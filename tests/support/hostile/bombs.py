"""Files that unpack to far more than they are, or say that they do."""

import gzip
import lzma
import struct
import tarfile
import zipfile
import zlib
from bz2 import compress as bzip2
from functools import cache

from tests.support.hostile import good
from tests.support.hostile.case import ACCEPTED, FULL, Group, Holes, Make
from tests.support.hostile.rawzip import Entry, pt2_entries, raw_zip

BOMBS = Group("bombs")
LARGE, DAMAGED, REFUSED, UNKNOWN = "archive_too_large", "file_damaged", "archive_unsafe_names", "unknown_format"
MIB, GIB = 1024**2, 1024**3


@cache
def zeros(size: int, wrap: int = -15) -> bytes:
    """`size` zeros, deflated (`wrap` of zlib: 31 for gzip), made without holding them."""
    packer = zlib.compressobj(9, zlib.DEFLATED, wrap)
    parts = [packer.compress(bytes(MIB)) for _ in range(size // MIB)]
    return b"".join([*parts, packer.flush()])


def packed(name: bytes, size: int, told: int | None = None) -> Entry:
    """An entry of zeros that says it has `told` bytes."""
    body, crc = zeros(size), 0
    fields = {"method": 8, "stored": len(body), "size": size if told is None else told, "crc": crc}
    return Entry(name, body, local=fields, central=fields)


def npy_head(size: int) -> bytes:
    """The header of a column of bytes."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({size},), }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header


def nested(depth: int) -> bytes:
    """A zip of zips of zips, each sixteen times the next."""
    inner = raw_zip([packed(b"0", 16 * MIB)])
    for _ in range(depth):
        inner = good.zip_of({f"{index}.zip": inner for index in range(16)}, zipfile.ZIP_DEFLATED)
    return inner


def overlapped(count: int, name: str) -> bytes:
    """David Fifield's bomb: every entry of the directory unpacks one and the same kernel of zeros."""
    kernel = packed(name.format(0).encode(), 64 * MIB)
    ghosts = [packed(name.format(index).encode(), 64 * MIB) for index in range(1, count)]
    listed = [Entry(g.name, g.data, local=g.local, central={**g.central, "offset": 0}, ghost=True) for g in ghosts]
    return raw_zip([kernel, *listed])


def own_head() -> bytes:
    """A gzip file that unpacks to its own beginning, in the manner of Russ Cox's r.gz."""
    head = b"\x1f\x8b\x08\0\0\0\0\0\2\xff"
    literal = b"\0" + struct.pack("<HH", len(head) + 5, 0xFFFF ^ (len(head) + 5))
    return head + literal + head + literal + b"\1\0\0\xff\xff" + struct.pack("<II", zlib.crc32(head + literal), 15)


def tar_claim(size: int, stored: int = 0) -> Holes:
    """A tar with an entry of `size` bytes, holes all of them where they are there."""
    info = tarfile.TarInfo("m.onnx")
    info.size = size
    head = info.tobuf(tarfile.GNU_FORMAT)
    return Holes(512 + (stored or size + -size % 512) + 1024, ((0, head),))


def gz_tar(size: int) -> bytes:
    """A tar with zeros, packed by gzip."""
    info = tarfile.TarInfo("m.onnx")
    info.size = size
    head = gzip.compress(info.tobuf(tarfile.GNU_FORMAT))
    return head + zeros(size, 31) + gzip.compress(bytes(1024))


def safetensors_claim(size: int) -> Holes:
    """A dataset of zeros that are holes."""
    header = f'{{"x":{{"dtype":"U8","shape":[{size // 64},64],"data_offsets":[0,{size}]}}}}'.encode()
    return Holes(8 + len(header) + size, ((0, struct.pack("<Q", len(header)) + header),))


def npz_hole(size: int) -> Holes:
    """An ``.npz`` whose one column is a hole, with the sizes of zip64 where they need it."""
    head = npy_head(size)
    sizes = {"size": 2**32 - 1, "stored": 2**32 - 1, "crc": 1}
    total = len(head) + size
    extra = struct.pack("<HHQQ", 1, 16, total, total)
    made = raw_zip([Entry(b"x.npy", head, local=sizes, central=sizes | {"extra": extra})])
    at = made.index(b"PK\1\2")
    tail = made[at : made.index(b"PK\5\6")]
    start = at + size
    end = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(tail), start)
    end += struct.pack("<4sIQI", b"PK\6\7", 0, start + len(tail), 1)
    end += struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(tail), 2**32 - 1, 0)
    return Holes(start + len(tail) + len(end), ((0, made[:at]), (start, tail + end)))


def column(size: int, told: int | None = None) -> Make:
    """A column of `size` zeros, deflated, its entry saying `told`."""

    def make(canary: object) -> bytes:
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        body = packer.compress(npy_head(size))
        body += b"".join(packer.compress(bytes(MIB)) for _ in range(size // MIB)) + packer.flush()
        fields = {"method": 8, "stored": len(body), "size": 128 + size if told is None else told, "crc": 0}
        return raw_zip([Entry(b"x.npy", body, local=fields, central=fields)])

    return make


def many(count: int, name: str) -> bytes:
    """Very many empty entries."""
    return raw_zip([Entry(name.format(index).encode()) for index in range(count)])


BOMBS.model("zeros-in-pt2", lambda c: raw_zip([*pt2_entries(), packed(b"data/x", 32 * MIB)]), LARGE)
BOMBS.model(
    "zeros-that-understate",
    lambda c: raw_zip([*pt2_entries()[1:], packed(pt2_entries()[0].name, 32 * MIB, 4096)]),
    DAMAGED,
    LARGE,
)
BOMBS.model(
    "zeros-that-say-nothing",
    lambda c: raw_zip([*pt2_entries()[1:], packed(pt2_entries()[0].name, 32 * MIB, 0)]),
    DAMAGED,
    LARGE,
)
BOMBS.model("json-of-zeros", lambda c: raw_zip([packed(b"models/model.json", 32 * MIB)]), LARGE)
BOMBS.model(
    "config-of-zeros", lambda c: raw_zip([packed(b"config.json", 32 * MIB), Entry(b"model.safetensors", b"x")]), LARGE
)
BOMBS.model("nested-zips", lambda c: nested(3), UNKNOWN, LARGE)
BOMBS.model(
    "weights-deflated-twice",
    lambda c: good.zip_of(
        {
            **good.entries_of(good.pt2("2.6.0"), top=True),
            "serialized_state_dict.pt": raw_zip([packed(b"archive/data.pkl", 16 * MIB)]),
        },
        zipfile.ZIP_DEFLATED,
    ),
    LARGE,
)
BOMBS.model("overlapping-kernel", lambda c: overlapped(500, "models/{}.json"), REFUSED, DAMAGED)
BOMBS.tensors("overlapping-kernel", lambda c: overlapped(200, "x{}.npy"), LARGE, DAMAGED)
BOMBS.model("gzip-of-its-own-head", lambda c: own_head(), UNKNOWN)
BOMBS.tensors("gzip-of-its-own-head", lambda c: own_head(), UNKNOWN)
BOMBS.model(
    "many-entries", lambda c: many(65_000, "models/{}.json"), UNKNOWN, "file_incomplete", "schema_invalid", DAMAGED
)
BOMBS.tensors("many-entries", lambda c: many(60_000, "x{}.npy"), UNKNOWN)
BOMBS.model("gzip-tar", lambda c: gz_tar(64 * MIB), LARGE)
BOMBS.model("gzip-of-zeros", lambda c: zeros(64 * MIB, 31), UNKNOWN)
BOMBS.model("gzip-in-many-members", lambda c: gzip.compress(b"") * 20_000, UNKNOWN)
BOMBS.model(
    "gzip-tar-in-many-members",
    lambda c: gz_tar(MIB) + gzip.compress(bytes(512)) * 20_000,
    LARGE,
    DAMAGED,
    "file_incomplete",
)
BOMBS.model("xz-tar", lambda c: lzma.compress(bytes(32 * MIB)), UNKNOWN)
BOMBS.model("bzip2-tar", lambda c: bzip2(bytes(32 * MIB)), UNKNOWN)
BOMBS.model("tar-of-a-hole", lambda c: tar_claim(4 * GIB), FULL)
BOMBS.model("tar-that-claims", lambda c: tar_claim(4 * GIB, 512), DAMAGED)
BOMBS.model("onnx-of-a-hole", lambda c: Holes(3 * GIB, ((0, good.onnx_file()),)), UNKNOWN)
BOMBS.model(
    "onnx-graph-of-a-hole", lambda c: Holes(2 * GIB - 1, ((0, b"\x08\x09\x3a" + b"\xf9\xff\xff\xff\x07"),)), FULL
)
BOMBS.model("zip-of-a-hole", lambda c: Holes(4 * GIB, ((0, b"PK\3\4"), (4 * GIB - 22, b"PK\5\6" + bytes(18)))), FULL)
BOMBS.model("zeros-of-4-gib", lambda c: Holes(4 * GIB, ()), UNKNOWN)
BOMBS.tensors("deflated-column", column(300 * MIB), LARGE)
BOMBS.tensors("deflated-column-that-understates", column(32 * MIB, 4096), DAMAGED)
BOMBS.tensors("deflated-column-below-the-limit", column(16 * MIB), DAMAGED)
BOMBS.tensors("npz-of-a-hole", lambda c: npz_hole(GIB // 2), DAMAGED)
BOMBS.tensors("safetensors-of-a-hole", lambda c: safetensors_claim(GIB // 4), ACCEPTED)
BOMBS.tensors(
    "safetensors-header-of-a-hole", lambda c: Holes(4 * GIB, ((0, struct.pack("<Q", 4 * GIB - 8) + b"{"),)), DAMAGED
)
BOMBS.tensors("zeros-of-4-gib", lambda c: Holes(4 * GIB, ()), UNKNOWN)
BOMBS.text("zeros-of-4-gib", lambda c: Holes(4 * GIB, ()), "dataset_text_invalid")
BOMBS.text("line-of-4-gib", lambda c: Holes(4 * GIB, ((0, b'{"text": "'),)), "dataset_text_invalid")
BOMBS.text("hundreds-of-thousands-of-lines", lambda c: b"x\n" * 300_000, ACCEPTED)
BOMBS.text("hundreds-of-thousands-of-empty-lines", lambda c: b"\n" * 500_000, "dataset_too_few_samples")
