"""Tar archives of unknown origin, plain or compressed by gzip, checked and read as zips are."""

import gzip
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from worker.engine.formats.archive import (
    MAX_ENTRIES,
    MAX_RATIO,
    Archive,
    Entry,
    damaged,
    refuse_name,
    too_large,
    unsafe_names,
)
from worker.engine.formats.mapped import Mapped

_GZIP: Final = b"\x1f\x8b"
_MAGIC: Final = (257, b"ustar")
_BLOCK: Final = 512
_CHUNK: Final = 1 << 20
_MAX_EXTENDED: Final = 1 << 20
_LONGEST_NUMBER: Final = 20
_OLD_FILE, _FOLDER, _LONG_NAME, _PAX = b"\0", b"5", b"L", b"x"
_FILES: Final = (b"0", _OLD_FILE, b"7")
#: Headers about the next entry: its long name, the name that it links to, anything; and those about all entries.
_EXTENDED: Final = (_LONG_NAME, b"K", _PAX, b"g")
_HARMLESS: Final = 16 << 20  # a small folder grows a lot: a tar is padded with zeros


def is_tar(path: Path) -> bool:
    """Whether the file is a tar, also inside of gzip."""
    try:
        with _opened(path) as file:
            head = file.read(_MAGIC[0] + len(_MAGIC[1]))
    except (OSError, EOFError, zlib.error):
        return False
    return head[_MAGIC[0] :] == _MAGIC[1]


def opened(path: Path) -> Archive | None:
    """The zip or tar that a file is, by how it starts; None: it is neither.

    Raises:
        InvalidModel: what `Archive` and `Tar` refuse.
    """
    with path.open("rb") as file:
        if file.read(4) in (b"PK\3\4", b"PK\5\6"):
            return Archive(path)
    return Tar(path) if is_tar(path) else None


class Tar(Archive):
    """A checked tar archive, its one top folder taken off the names.

    Raises:
        InvalidModel: damaged, too large when unpacked, or with names or links that leave the folder.
    """

    def __init__(self, path: Path) -> None:
        with tempfile.NamedTemporaryFile(suffix=".tar") as unpacked:
            plain = path
            if _is_packed(path):
                _unpack(path, unpacked)
                plain = Path(unpacked.name)
            self.mapped = Mapped.open(plain)
            self._bytes = self.mapped.data
        self._take(_entries(self._bytes))

    def _checksum(self, entry: Entry, data: memoryview) -> None:
        """A tar has none."""


def _is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == _GZIP


def _opened(path: Path) -> IO[bytes]:
    return gzip.open(path) if _is_packed(path) else path.open("rb")  # type: ignore[return-value]


def _unpack(path: Path, target: IO[bytes]) -> None:
    """Unpack gzip, never to more than `MAX_RATIO` times its size, or what is harmless."""
    most = max(MAX_RATIO * path.stat().st_size, _HARMLESS)
    try:
        with gzip.open(path) as file:
            while chunk := file.read(_CHUNK):
                most -= len(chunk)
                if most < 0:
                    raise too_large(f"unpacks to more than {MAX_RATIO} times its size")
                target.write(chunk)
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
            raise
        raise damaged(str(error)) from error
    target.flush()


@dataclass
class _Ahead:
    """What headers said about the entry that follows them."""

    name: str = ""
    size: int | None = None


def _entries(data: memoryview) -> list[Entry]:
    """The regular files. `tarfile` trusts the numbers of a header; here each is bounded before it is used."""
    entries: list[Entry] = []
    ahead, position = _Ahead(), 0
    for _ in range(MAX_ENTRIES):
        header = bytes(data[position : position + _BLOCK])
        if len(header) < _BLOCK or not header.strip(b"\0"):
            return entries
        _check_sum(header)
        kind, size, position = header[156:157], _number(header[124:136]), position + _BLOCK
        if kind in _EXTENDED:
            _read_ahead(kind, bytes(_part(data, position, size, _MAX_EXTENDED)), ahead)
        else:
            name, size = (ahead.name or _name(header)).removeprefix("./"), size if ahead.size is None else ahead.size
            ahead = _Ahead()
            if kind == _FOLDER or (kind == _OLD_FILE and name.endswith("/")):
                continue  # whatever its size says, nothing of it follows
            _check_name(name, kind)
            _part(data, position, size, len(data))
            entries.append(Entry(name, size, position, size, compressed=False, crc=0))
        position += size + -size % _BLOCK
    raise too_large(f"has more than {MAX_ENTRIES} entries")


def _part(data: memoryview, start: int, size: int, most: int) -> memoryview:
    if size > len(data) - start:
        raise damaged("an entry is cut off")
    if size > most:
        raise too_large(f"has a header of {size} bytes")
    return data[start : start + size]


def _check_name(name: str, kind: bytes) -> None:
    if kind not in _FILES:
        raise unsafe_names(f"has an entry {name[:120]!r} that is a link or a device")
    refuse_name(name)


def _read_ahead(kind: bytes, data: bytes, ahead: _Ahead) -> None:
    if kind == _LONG_NAME:
        ahead.name = data.partition(b"\0")[0].decode("utf-8", "replace")
    while kind == _PAX and data:
        length, _, _ = data.partition(b" ")
        end = int(length) if length.isdigit() and len(length) < 8 else 0
        if not len(length) + 1 < end <= len(data) or data[end - 1 : end] != b"\n":
            raise damaged("a header makes no sense")
        key, _, value = data[len(length) + 1 : end - 1].partition(b"=")
        if key == b"path":
            ahead.name = value.decode("utf-8", "replace")
        elif key == b"size":
            if not value.isdigit() or len(value) > _LONGEST_NUMBER:
                raise damaged("a header makes no sense")
            ahead.size = int(value)
        elif key.startswith(b"GNU.sparse."):
            raise unsafe_names("has an entry with holes")
        data = data[end:]


def _name(header: bytes) -> str:
    name, prefix = (part.partition(b"\0")[0].decode("utf-8", "replace") for part in (header[:100], header[345:500]))
    return f"{prefix}/{name}" if prefix and header[257:263] == b"ustar\0" else name


def _number(field: bytes) -> int:
    """Octal text, or GNU's binary form for what is larger than 8 GiB; never a negative one."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    text = field.partition(b"\0")[0].strip(b" ") or b"0"
    if text.strip(b"01234567"):
        raise damaged("a header makes no sense")
    return int(text, 8)


def _check_sum(header: bytes) -> None:
    """The sum of the bytes, the checksum itself taken as spaces; old programs summed them with a sign."""
    rest = header[:148] + b" " * 8 + header[156:]
    total = sum(rest)
    if _number(header[148:156]) not in (total, total - 256 * sum(byte > 127 for byte in rest)):
        raise damaged("a header makes no sense")
