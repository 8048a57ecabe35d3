"""Zip archives: the directory is checked as the service checks it, entries are read one at a time."""

import errno
import io
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from modelpress.inspection.names import leaves, without_top_folder
from modelpress.inspection.report import Refused
from modelpress.inspection.stream import Stream

MAX_ENTRIES: Final = 100_000
MAX_DIRECTORY: Final = 64 << 20
MAX_RATIO: Final = 50
MAX_TEXT: Final = 256 << 20
_LOCAL: Final = struct.Struct("<4s5H3I2H")
_END: Final = struct.Struct("<4s4H2IH")
#: Sizes of the records of zip64 in front of the end: the end of the directory, and where that is.
_LARGE_END, _LARGE_LOCATOR = 56, 20
_UTF8: Final = 0x800
_LONGEST_TAIL: Final = 65_557
_KINDS: Final = (0, stat.S_IFREG, stat.S_IFDIR)


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the archive; `offset` is where its bytes begin."""

    info: zipfile.ZipInfo
    size: int
    offset: int


def _damaged(what: str) -> Refused:
    return Refused(
        "file_damaged", f"The archive is damaged: {what}. It may have been cut off on its way; upload it again."
    )


def _unsafe(what: str) -> Refused:
    return Refused("archive_unsafe_names", f"The archive {what}. Save the model again.")


def _too_large(what: str) -> Refused:
    return Refused(
        "archive_too_large",
        f"The archive {what}, which no saved model does. Save the model again.",
    )


class Archive:
    """A checked zip archive, its one top folder taken off the names. Raises `Refused`."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._file = file
        self._total = path.stat().st_size
        self._check_end()
        try:
            self._zip = zipfile.ZipFile(file)
            infos = [info for info in self._zip.infolist() if not info.filename.endswith("/")]
        except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError, OSError) as error:
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise
            raise _damaged(str(error)) from error
        entries = [self._entry(info) for info in infos]
        _check_sizes(entries, self._total)
        self.entries = without_top_folder({entry.info.filename: entry for entry in entries})

    def _check_end(self) -> None:
        """Bound the directory before it is read into memory."""
        start = max(0, self._total - _LONGEST_TAIL - 200)
        self._file.seek(start)
        tail = self._file.read()
        at = tail.rfind(b"PK\x05\x06", max(0, len(tail) - _LONGEST_TAIL))
        if at < 0 or at + _END.size > len(tail):
            raise _damaged("its directory, which is at the end, is missing")
        _, _, _, _, entries, size, offset, comment = _END.unpack_from(tail, at)
        end = at
        large = at - _LARGE_END - _LARGE_LOCATOR
        if large >= 0 and (tail[large : large + 4], tail[at - _LARGE_LOCATOR : at - 16]) == (
            b"PK\x06\x06",
            b"PK\x06\x07",
        ):
            entries, size, offset = struct.unpack_from("<QQQ", tail, large + 32)
            end = large
        if entries > MAX_ENTRIES or size > MAX_DIRECTORY:
            raise _too_large(f"has {entries} entries")
        if offset + size != start + end or at + _END.size + comment != len(tail):
            raise _damaged("its directory is not where it should be")

    def _entry(self, info: zipfile.ZipInfo) -> Entry:
        _check_name(info)
        name = info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437")
        if not 0 <= info.header_offset < self._total:
            raise _damaged(f"entry {info.filename!r} lies beyond its end")
        self._file.seek(info.header_offset)
        header = self._file.read(_LOCAL.size)
        if len(header) < _LOCAL.size:
            raise _damaged(f"entry {info.filename!r} lies beyond its end")
        signature, *_, name_length, extra_length = _LOCAL.unpack(header)
        if signature != b"PK\x03\x04" or self._file.read(name_length) != name:
            raise _damaged(f"entry {info.filename!r} is not where the directory says")
        offset = info.header_offset + _LOCAL.size + name_length + extra_length
        if offset + info.compress_size > self._total:
            raise _damaged(f"entry {info.filename!r} is cut off")
        stored = info.compress_type == zipfile.ZIP_STORED and info.compress_size == info.file_size
        if not stored and info.compress_type != zipfile.ZIP_DEFLATED:
            raise _damaged(f"entry {info.filename!r} is compressed in an unknown way")
        return Entry(info, info.file_size, offset)

    def stream(self, name: str) -> Stream:
        """An entry, to be read before the next one is asked for."""
        entry = self.entries[name]
        if entry.info.compress_type == zipfile.ZIP_STORED:
            self._file.seek(entry.offset)
            return Stream(self._file, entry.size)
        inflated = io.BufferedReader(self._zip.open(entry.info))  # type: ignore[type-var]
        return Stream(inflated, entry.size, seekable=False)

    def text(self, name: str) -> bytes:
        """An entry that is small, checked against its CRC."""
        entry = self.entries.get(name)
        if entry is None:
            raise Refused("file_incomplete", f"The archive lacks {name!r}. Save the model again.")
        if entry.size > MAX_TEXT:
            raise _too_large(f"holds {entry.size} bytes of {name!r}")
        try:
            with self._zip.open(entry.info) as file:
                data = file.read(entry.size + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, struct.error) as error:
            raise _damaged(f"the checksum of {name!r} does not match") from error
        if len(data) != entry.size:
            raise _damaged(f"entry {name!r} is cut off")
        return data


def _check_name(info: zipfile.ZipInfo) -> None:
    name = info.orig_filename
    if leaves(name):
        raise _unsafe(f"has an entry {name[:120]!r} that points outside of it")
    if stat.S_IFMT(info.external_attr >> 16) not in _KINDS:
        raise _unsafe(f"has an entry {name[:120]!r} that is a link or a device")
    if info.flag_bits & 0x1:
        raise _unsafe(f"has an encrypted entry {name[:120]!r}")


def _check_sizes(entries: list[Entry], total: int) -> None:
    if len({entry.info.filename for entry in entries}) != len(entries):
        raise _unsafe("has two entries of the same name")
    end = 0
    for entry in sorted(entries, key=lambda one: one.offset):
        if entry.offset < end:
            raise _unsafe(f"has entries that lie on top of each other at {entry.info.filename[:120]!r}")
        end = entry.offset + entry.info.compress_size
    unpacked = sum(entry.size for entry in entries)
    if unpacked > MAX_RATIO * total:
        raise _too_large(f"of {total} bytes unpacks to {unpacked} bytes")
