"""Zips as no program writes them: every field of every record can lie."""

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.support.hostile import good

_LOCAL, _CENTRAL, _END = "<4s5H3I2H", "<4s6H3I5H2I", "<4s4H2IH"


@dataclass(frozen=True)
class Entry:
    """One file; `local` and `central` replace fields of its two records.

    Those of `hidden` are not in the directory, those of `ghost` nowhere else.

    Fields: version, flags, method, crc, stored, size, name, extra; in the central one also comment, attributes, offset.
    """

    name: bytes
    data: bytes = b""
    deflated: bool = False
    local: Mapping[str, object] = field(default_factory=dict)
    central: Mapping[str, object] = field(default_factory=dict)
    hidden: bool = False
    ghost: bool = False

    @property
    def body(self) -> bytes:
        """The bytes as they are stored."""
        if not self.deflated:
            return self.data
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        return packer.compress(self.data) + packer.flush()

    @property
    def fields(self) -> dict[str, object]:
        """What both records should say."""
        return {
            "version": 20, "flags": 0, "method": 8 if self.deflated else 0, "crc": zlib.crc32(self.data),
            "stored": len(self.body), "size": len(self.data), "name": self.name, "extra": b"",
        }  # fmt: skip


def _local(entry: Entry) -> bytes:
    told = {**entry.fields, **entry.local}
    numbers = [told[key] for key in ("version", "flags", "method")]
    sizes = [told[key] for key in ("crc", "stored", "size")]
    name, extra = told["name"], told["extra"]
    return struct.pack(_LOCAL, b"PK\3\4", *numbers, 0, 33, *sizes, len(name), len(extra)) + name + extra


def _central(entry: Entry, offset: int) -> bytes:
    told = {**entry.fields, "comment": b"", "attributes": 0, "offset": offset, **entry.central}
    numbers = [told[key] for key in ("version", "flags", "method")]
    sizes = [told[key] for key in ("crc", "stored", "size")]
    name, extra, comment = told["name"], told["extra"], told["comment"]
    lengths = [len(name), len(extra), len(comment), 0, 0]
    head = struct.pack(
        _CENTRAL, b"PK\1\2", 3 << 8, *numbers, 0, 33, *sizes, *lengths, told["attributes"], told["offset"]
    )
    return head + name + extra + comment


def raw_zip(entries: Sequence[Entry], *, prefix: bytes = b"", gap: bytes = b"", large: Mapping[str, int] | None = None,
            tail: bytes = b"", **end: object) -> bytes:  # fmt: skip
    """A zip.

    Args:
        prefix: in front of everything; offsets count from the start of the file.
        gap: between the entries and the directory.
        large: writes the records of zip64, with these fields (entries, size, offset, at) replaced.
        end: fields of the last record replaced: here, total, size, offset, comment, disk.
        tail: behind everything.
    """
    body, directory = bytearray(prefix), bytearray()
    for entry in entries:
        if not entry.hidden:
            directory += _central(entry, len(body))
        if not entry.ghost:
            body += _local(entry) + entry.body
    body += gap
    count = sum(not entry.hidden for entry in entries)
    told = {"here": count, "total": count, "size": len(directory), "offset": len(body), "comment": b"", "disk": 0} | end
    records = b""
    if large is not None:
        real = {"entries": count, "size": len(directory), "offset": len(body), "at": len(body) + len(directory)} | large
        counts = (real["entries"], real["entries"], real["size"], real["offset"])
        records = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, *counts)
        records += struct.pack("<4sIQI", b"PK\6\7", 0, real["at"], 1)
    numbers = [told[key] for key in ("disk", "disk", "here", "total", "size", "offset")]
    return (
        bytes(body + directory)
        + records
        + struct.pack(_END, b"PK\5\6", *numbers, len(told["comment"]))
        + told["comment"]
        + tail
    )


def entries_of(data: bytes, *, top: bool = False) -> list[Entry]:
    """The files of a good zip, to be written again with a lie; `top`: without their folder."""
    return [Entry(name.encode(), content) for name, content in good.entries_of(data, top=top).items()]


def pt2_entries() -> list[Entry]:
    """Those of a ``.pt2``."""
    return entries_of(good.pt2(), top=True)


def npz_entries() -> list[Entry]:
    """Those of an ``.npz``."""
    return entries_of(good.npz())
