"""Zips whose records contradict each other, so that two programs see two different archives."""

import struct
import zipfile
import zlib
from dataclasses import replace

from tests.support.hostile import good
from tests.support.hostile.case import ACCEPTED, Group
from tests.support.hostile.rawzip import Entry, npz_entries, pt2_entries, raw_zip

LIES = Group("zip-records")
DAMAGED, REFUSED, LARGE, COLUMN = "file_damaged", "archive_unsafe_names", "archive_too_large", "dataset_column_invalid"
INCOMPLETE = "file_incomplete"


def first(entries: list[Entry], **changes: object) -> list[Entry]:
    """The entries with the first one changed."""
    return [replace(entries[0], **changes), *entries[1:]]


def both(name: str, model: tuple[str, ...], data: tuple[str, ...], **changes: object) -> None:
    """The lie in the first entry of a ``.pt2`` and of an ``.npz``."""
    LIES.model(name, lambda canary: raw_zip(first(pt2_entries(), **changes)), *model)
    LIES.tensors(name, lambda canary: raw_zip(first(npz_entries(), **changes)), *data)


def at_end(name: str, model: tuple[str, ...], data: tuple[str, ...], **options: object) -> None:
    """The lie in the records at the end."""
    LIES.model(name, lambda canary: raw_zip(pt2_entries(), **options), *model)
    LIES.tensors(name, lambda canary: raw_zip(npz_entries(), **options), *data)


ZIP64 = struct.pack("<HHQQQ", 1, 24, 2**63, 2**63, 2**63)
both("local-name-differs", (DAMAGED,), (DAMAGED,), local={"name": b"other.npy"})
both("local-name-longer", (DAMAGED,), (DAMAGED,), local={"name": b"a" * 60_000})
both("local-size-differs", (ACCEPTED,), (ACCEPTED,), local={"size": 5, "stored": 5})
both("local-crc-differs", (ACCEPTED,), (ACCEPTED,), local={"crc": 5})
both("local-method-differs", (ACCEPTED,), (ACCEPTED,), local={"method": 8})
both("local-flags-differ", (ACCEPTED,), (ACCEPTED,), local={"flags": 1})
both("local-extra-more", (ACCEPTED,), (ACCEPTED,), local={"extra": b"\1\0\4\0abcd"})
both("crc-wrong", (DAMAGED,), (DAMAGED,), central={"crc": 1})
both("size-zero", (DAMAGED,), (DAMAGED,), central={"size": 0, "stored": 0})
both("size-huge", (DAMAGED,), (DAMAGED, LARGE), central={"size": 2**32 - 2, "stored": 2**32 - 2})
both("size-larger-than-stored", (DAMAGED,), (DAMAGED, LARGE), central={"size": 2**30})
both("stored-beyond-the-end", (DAMAGED,), (DAMAGED,), central={"stored": 2**31})
both("offset-beyond-the-end", (DAMAGED,), (DAMAGED,), central={"offset": 2**31})
both("offset-at-the-next", (DAMAGED, REFUSED), (DAMAGED, REFUSED), central={"offset": 200})
both("offset-in-the-directory", (DAMAGED,), (DAMAGED,), central={"offset": len(good.npz()) - 60})
both("encrypted", (REFUSED,), (DAMAGED,), central={"flags": 1}, local={"flags": 1})
both("strongly-encrypted", (REFUSED, DAMAGED), (DAMAGED,), central={"flags": 0x41}, local={"flags": 0x41})
both("masked-headers", (ACCEPTED, DAMAGED), (ACCEPTED, DAMAGED), central={"flags": 0x2000}, local={"flags": 0x2000})
both("patched-data", (ACCEPTED,), (ACCEPTED,), central={"flags": 0x20}, local={"flags": 0x20})
both("future-version", (DAMAGED,), (DAMAGED,), central={"version": 255})
for _method, _number in {
    "shrunk": 1,
    "imploded": 6,
    "deflate64": 9,
    "bzip2": 12,
    "lzma": 14,
    "zstd": 93,
    "xz": 95,
    "ppmd": 98,
    "aes": 99,
}.items():
    both(f"method-{_method}", (DAMAGED,), (DAMAGED,), central={"method": _number}, local={"method": _number})
both(
    "zip64-sizes-lie",
    (DAMAGED,),
    (DAMAGED, LARGE),
    central={"size": 2**32 - 1, "stored": 2**32 - 1, "extra": ZIP64[:4] + ZIP64[4:]},
)
both(
    "zip64-offset-lies",
    (DAMAGED,),
    (DAMAGED,),
    central={"offset": 2**32 - 1, "extra": struct.pack("<HHQ", 1, 8, 2**62)},
)
both("zip64-extra-is-short", (DAMAGED,), (DAMAGED,), central={"size": 2**32 - 1, "extra": b"\1\0\2\0ab"})
both("extra-field-overruns", (DAMAGED, ACCEPTED), (DAMAGED, ACCEPTED), central={"extra": b"\1\0\xff\xff"})
both(
    "unicode-path-extra",
    (DAMAGED, ACCEPTED),
    (DAMAGED, ACCEPTED),
    central={"extra": struct.pack("<HHBI", 0x7075, 12, 1, zlib.crc32(b"x")) + b"../evil"},
)
both("comment-of-an-entry", (ACCEPTED,), (ACCEPTED,), central={"comment": b"PK\5\6" + bytes(18)})
both("deflated-garbage", (DAMAGED,), (DAMAGED,), local={"method": 8}, central={"method": 8})

at_end("comment-holds-another-end", (DAMAGED,), (ACCEPTED, DAMAGED, COLUMN), comment=b"PK\5\6" + bytes(18))
at_end("comment-longer-than-said", (DAMAGED,), (ACCEPTED, DAMAGED), tail=b"more")
at_end("comment-full", (ACCEPTED,), (ACCEPTED,), comment=b"c" * 65_535)
at_end("prefix", (DAMAGED, "unknown_format"), ("unknown_format",), prefix=b"#!/bin/sh\n")
at_end("prefix-of-zip", (ACCEPTED,), (ACCEPTED,), prefix=b"PK\3\4" + bytes(26))
at_end("gap-before-the-directory", (ACCEPTED,), (ACCEPTED,), gap=bytes(1000))
at_end("count-too-small", (DAMAGED, ACCEPTED), (ACCEPTED, DAMAGED), total=1, here=1)
at_end("count-too-large", (DAMAGED, ACCEPTED), (ACCEPTED, DAMAGED), total=60_000, here=60_000)
at_end("count-zero", (ACCEPTED, DAMAGED), (ACCEPTED, DAMAGED), total=0, here=0)
at_end("directory-size-zero", (DAMAGED,), (DAMAGED, COLUMN), size=0)
at_end("directory-size-huge", (LARGE, DAMAGED), (DAMAGED,), size=2**32 - 2)
at_end("directory-offset-zero", (DAMAGED,), (DAMAGED,), offset=0)
at_end("directory-offset-huge", (DAMAGED,), (DAMAGED,), offset=2**32 - 2)
at_end("other-disk", (DAMAGED, ACCEPTED), (DAMAGED, ACCEPTED), disk=7)
at_end("zip64-honest", (ACCEPTED,), (ACCEPTED,), large={})
at_end("zip64-count-lies", (LARGE,), (ACCEPTED, DAMAGED), large={"entries": 2**40})
at_end("zip64-end-size-lies", (LARGE,), (DAMAGED,), large={"size": 2**62})
at_end("zip64-end-offset-lies", (DAMAGED,), (DAMAGED,), large={"offset": 2**63})
at_end("zip64-record-elsewhere", (ACCEPTED,), (ACCEPTED,), large={"at": 2**63 - 1})
at_end("zip64-record-at-zero", (ACCEPTED,), (ACCEPTED,), large={"at": 0})


def twice(entries: list[Entry]) -> bytes:
    """Two entries of one name, the second one empty."""
    return raw_zip([*entries, Entry(entries[0].name, b"{}")])


def overlapping(entries: list[Entry], name: bytes) -> bytes:
    """Two names for the same bytes of the file."""
    return raw_zip([*entries, replace(entries[0], name=name, central={"offset": 0}, ghost=True)])


def same_twice(entries: list[Entry], name: bytes) -> bytes:
    """The same, where the local name is that of both."""
    again = replace(entries[0], central={"offset": 0, "comment": name}, ghost=True)
    return raw_zip([*entries, again])


def quoted(entries: list[Entry]) -> bytes:
    """An entry inside of another one's data, as in zip bombs without recursion."""
    inner = Entry(b"inner.npy", entries[0].data)
    outer = Entry(b"outer.npy", raw_zip([inner]))
    return raw_zip([outer, *entries, replace(inner, central={"offset": 30 + len(outer.name)}, ghost=True)])


LIES.model("a-name-twice", lambda canary: twice(pt2_entries()), REFUSED)
LIES.tensors("a-name-twice", lambda canary: twice(npz_entries()), COLUMN)
LIES.model(
    "a-name-twice-in-other-case", lambda canary: raw_zip([*pt2_entries(), Entry(b"MODELS/MODEL.JSON", b"{}")]), ACCEPTED
)
LIES.model("two-names-for-the-same-bytes", lambda canary: overlapping(pt2_entries(), b"again"), REFUSED, DAMAGED)
LIES.tensors("two-names-for-the-same-bytes", lambda canary: overlapping(npz_entries(), b"again.npy"), DAMAGED)
LIES.model("the-same-entry-twice", lambda canary: same_twice(pt2_entries(), b"again"), REFUSED)
LIES.tensors("the-same-entry-twice", lambda canary: same_twice(npz_entries(), b"again"), COLUMN)
LIES.model("entry-inside-of-another", lambda canary: quoted(pt2_entries()), REFUSED)
LIES.tensors("entry-inside-of-another", lambda canary: quoted(npz_entries()), DAMAGED)
LIES.model(
    "entry-not-in-the-directory",
    lambda canary: raw_zip([Entry(b"secret", b"x" * 100, hidden=True), *pt2_entries()]),
    ACCEPTED,
)
LIES.model("a-folder-with-data", lambda canary: raw_zip([*pt2_entries(), Entry(b"models/", b"x" * 100)]), ACCEPTED)
LIES.model("file-and-folder-of-one-name", lambda canary: raw_zip([*pt2_entries(), Entry(b"models", b"x")]), ACCEPTED)
LIES.model("empty-zip", lambda canary: raw_zip([]), DAMAGED)
LIES.tensors("empty-zip", lambda canary: raw_zip([]), COLUMN)
LIES.model("end-alone", lambda canary: b"PK\5\6" + b"\xff" * 18, DAMAGED, LARGE)
LIES.tensors("end-alone", lambda canary: b"PK\5\6" + b"\xff" * 18, DAMAGED, INCOMPLETE)
LIES.model("spanned", lambda canary: b"PK\7\x08" + good.pt2(), "unknown_format")
LIES.model("bzip2-really", lambda canary: good.zip_of(good.entries_of(good.pt2()), zipfile.ZIP_BZIP2), DAMAGED)
LIES.tensors(
    "lzma-really", lambda canary: good.zip_of(good.entries_of(good.npz()), zipfile.ZIP_LZMA), ACCEPTED, DAMAGED
)
