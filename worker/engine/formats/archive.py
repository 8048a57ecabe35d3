"""Zip archives of unknown origin: checked as a whole before any entry is read.

Entries are read from a private copy-on-write memory map; what is stored uncompressed (all that PyTorch writes) is
not copied.
"""

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from worker.engine.errors import InvalidModel
from worker.engine.formats import codes
from worker.engine.formats.mapped import Mapped
from worker.engine.zip_names import encoded_name

MAX_ENTRIES: Final = 100_000
MAX_DIRECTORY: Final = 64 << 20
#: Weights hardly compress: a file that grows more than this was made to grow.
MAX_RATIO: Final = 50
MAX_TEXT: Final = 256 << 20
_LOCAL_HEADER: Final = struct.Struct("<4s5H3I2H")
_END: Final = struct.Struct("<4s4H2IH")
#: Sizes of the records of zip64 in front of the end: the end of the directory, and where that is.
_LARGE_END, _LARGE_LOCATOR = 56, 20
_CHUNK: Final = 1 << 20
_MAX_NAME: Final = 4096


@dataclass(frozen=True)
class Entry:
    """One file of the archive: where its bytes are, and how they are stored."""

    name: str
    size: int
    offset: int
    stored: int
    compressed: bool
    crc: int


def damaged(what: str) -> InvalidModel:
    """The refusal of an archive that was cut off or changed."""
    return InvalidModel(
        codes.FILE_DAMAGED, f"The archive is damaged: {what}. It may have been cut off on its way; upload it again."
    )


def unsafe_names(what: str) -> InvalidModel:
    """The refusal of an archive whose names leave it."""
    return InvalidModel(codes.ARCHIVE_UNSAFE_NAMES, f"The archive {what}. Save the model again.")


def too_large(what: str) -> InvalidModel:
    """The refusal of an archive that unpacks to more than a model has."""
    return InvalidModel(
        codes.ARCHIVE_TOO_LARGE,
        f"The archive {what}, which no saved model does. Save the model again.",
    )


class _Window(io.RawIOBase):
    """Bytes as a file, for `zipfile` to read the directory from."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + (0, self._at, len(self._data))[whence]
        if at < 0:
            raise ValueError("its directory points in front of it")
        self._at = at
        return at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        part = self._data[self._at : self._at + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


class Archive:
    """A checked zip archive, its one top folder taken off the names.

    Args:
        source: a file, or the bytes of an archive that lies inside another (see `inside`).

    Raises:
        InvalidModel: damaged, too large when unpacked, or with names that leave the folder.
    """

    def __init__(self, source: Path | memoryview) -> None:
        if isinstance(source, Path):
            self.mapped = Mapped.open(source)
            source = self.mapped.data
        self._bytes = source
        _check_directory(self._bytes)
        try:
            with zipfile.ZipFile(_Window(self._bytes)) as archive:
                infos = archive.infolist()
        except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError) as error:
            raise damaged(str(error)) from error
        self._take([self._entry(info) for info in infos if not info.filename.endswith("/")])

    def _take(self, entries: list[Entry]) -> None:
        _check_sizes(entries, len(self._bytes))
        self.entries = _without_top_folder([entry for entry in entries if not _is_left_by_a_mac(entry.name)])

    def inside(self, name: str) -> "Archive":
        """The archive that entry `name` is; its bytes are not copied."""
        data = self.view(name)
        if self.entries[name].compressed:
            # Compressed twice, it could grow by the square of what one archive may.
            raise too_large(f"holds the archive {name!r} in compressed form")
        return Archive(data)

    def _entry(self, info: zipfile.ZipInfo) -> Entry:
        _check_name(info)
        start = info.header_offset
        if start + _LOCAL_HEADER.size > len(self._bytes):
            raise damaged(f"entry {info.filename!r} lies beyond its end")
        signature, *_, name_length, extra_length = _LOCAL_HEADER.unpack_from(self._bytes, start)
        offset = start + _LOCAL_HEADER.size + name_length + extra_length
        name = bytes(self._bytes[start + _LOCAL_HEADER.size : offset - extra_length])
        if signature != b"PK\x03\x04" or name != encoded_name(info):
            raise damaged(f"entry {info.filename!r} is not where the directory says")
        if offset + info.compress_size > len(self._bytes):
            raise damaged(f"entry {info.filename!r} is cut off")
        compressed = info.compress_type == zipfile.ZIP_DEFLATED
        if not compressed and (info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size):
            raise damaged(f"entry {info.filename!r} is compressed in an unknown way")
        return Entry(info.filename, info.file_size, offset, info.compress_size, compressed, info.CRC)

    def view(self, name: str) -> memoryview:
        """The bytes of an entry, checked against its CRC; writable, private to this process.

        Raises:
            InvalidModel: ``file_incomplete`` where there is no such entry, ``file_damaged`` where the bytes changed.
        """
        data, check = self.unchecked(name)
        check()
        return data

    def unchecked(self, name: str) -> tuple[memoryview, Callable[[], None]]:
        """As `view`, and what checks the bytes: zlib works beside other things of the process."""
        entry = self.entries.get(name)
        if entry is None:
            raise InvalidModel(codes.FILE_INCOMPLETE, f"The archive lacks {name!r}. Save the model again.")
        raw = self._bytes[entry.offset : entry.offset + entry.stored]
        data = memoryview(_inflate(raw, entry)) if entry.compressed else raw
        return data, partial(self._checksum, entry, data)

    def _checksum(self, entry: Entry, data: memoryview) -> None:
        if zlib.crc32(data) != entry.crc:
            raise damaged(f"the checksum of {entry.name!r} does not match")

    def text(self, name: str) -> bytes:
        """A small entry, such as JSON, as bytes of its own."""
        entry = self.entries.get(name)
        if entry is not None and entry.size > MAX_TEXT:
            raise too_large(f"holds {entry.size} bytes of {name!r}")
        return bytes(self.view(name))

    def folder(self, prefix: str) -> list[Entry]:
        """The entries whose names start with `prefix`."""
        return [entry for name, entry in self.entries.items() if name.startswith(prefix)]


def _inflate(raw: memoryview, entry: Entry) -> bytearray:
    """Decompress, never past the declared size."""
    decompressor = zlib.decompressobj(-zlib.MAX_WBITS)
    data = bytearray()
    try:
        pending: bytes | memoryview = raw
        while pending and not decompressor.eof:
            data += decompressor.decompress(pending, min(_CHUNK, entry.size - len(data) + 1))
            if len(data) > entry.size:
                raise too_large(f"says {entry.size} bytes for {entry.name!r} but holds more")
            pending = decompressor.unconsumed_tail
    except zlib.error as error:
        raise damaged(f"entry {entry.name!r}: {error}") from error
    if len(data) != entry.size:
        raise damaged(f"entry {entry.name!r} is cut off")
    return data


def _find_last(data: memoryview, what: bytes, start: int, end: int) -> int:
    """Where `what` begins last between `start` and `end`; -1: nowhere."""
    start = max(0, start)
    found = bytes(data[start:end]).rfind(what)
    return start + found if found >= 0 else -1


def _check_directory(data: memoryview) -> None:
    """Bound the directory before it is read into memory."""
    at = _find_last(data, b"PK\x05\x06", len(data) - 65_557, len(data))
    if at < 0 or at + _END.size > len(data):
        raise damaged("its directory, which is at the end, is missing")
    _, _, _, _, entries, size, offset, comment = _END.unpack_from(data, at)
    end = at
    large = at - _LARGE_END - _LARGE_LOCATOR  # where zipfile looks too; a search would find that of an archive inside
    signatures = bytes(data[large : large + 4] if large >= 0 else b""), bytes(data[at - _LARGE_LOCATOR : at - 16])
    if signatures == (b"PK\x06\x06", b"PK\x06\x07"):
        entries, size, offset = struct.unpack_from("<QQQ", data, large + 32)
        end = large
    if entries > MAX_ENTRIES or size > MAX_DIRECTORY:
        raise too_large(f"has {entries} entries")
    # A cut-off archive may end in one that it contains; that one does not start at the first byte.
    if offset + size != end or at + _END.size + comment != len(data) or bytes(data[:2]) != b"PK":
        raise damaged("its directory is not where it should be")


def refuse_name(name: str) -> None:
    """Refuse the name of a file that would lie outside of the archive's folder, on any system.

    Raises:
        InvalidModel: ``archive_unsafe_names``.
    """
    parts = name.split("/")
    if len(name) > _MAX_NAME or "\\" in name or "\0" in name or ":" in parts[0] or ".." in parts or "" in parts:
        raise unsafe_names(f"has an entry {name[:120]!r} that points outside of it")


def _check_name(info: zipfile.ZipInfo) -> None:
    name = info.orig_filename
    refuse_name(name)
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise unsafe_names(f"has an entry {name[:120]!r} that is a link or a device")
    if info.flag_bits & 0x1:
        raise unsafe_names(f"has an encrypted entry {name[:120]!r}")


def _check_sizes(entries: list[Entry], total: int) -> None:
    names = {entry.name for entry in entries}
    if len(names) != len(entries):
        raise unsafe_names("has two entries of the same name")
    end = 0
    for entry in sorted(entries, key=lambda e: e.offset):
        if entry.offset < end:
            raise unsafe_names(f"has entries that lie on top of each other at {entry.name[:120]!r}")
        end = entry.offset + entry.stored
    unpacked = sum(entry.size for entry in entries)
    if unpacked > MAX_RATIO * total:
        raise too_large(f"of {total} bytes unpacks to {unpacked} bytes")


def _is_left_by_a_mac(name: str) -> bool:
    """What macOS adds to every archive that it makes; nobody reads it."""
    last = name.rpartition("/")[2]
    return name.startswith("__MACOSX/") or last.startswith("._") or last == ".DS_Store"


def _without_top_folder(entries: list[Entry]) -> dict[str, Entry]:
    """By name, without the folders that all of them lie in."""
    named = {entry.name: entry for entry in entries}
    while named and all("/" in name for name in named) and len({name.partition("/")[0] for name in named}) == 1:
        named = {name.partition("/")[2]: entry for name, entry in named.items()}
    return named
