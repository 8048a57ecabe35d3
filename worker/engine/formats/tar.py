"""Tar archives of unknown origin, plain or compressed by gzip, checked and read as zips are."""

import gzip
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import IO, Final

from worker.engine.formats.archive import MAX_ENTRIES, MAX_RATIO, Archive, Entry, damaged, too_large, unsafe_names
from worker.engine.formats.mapped import Mapped

_GZIP: Final = b"\x1f\x8b"
_MAGIC: Final = (257, b"ustar")
_CHUNK: Final = 1 << 20
_HARMLESS: Final = 16 << 20  # a small folder grows a lot: a tar is padded with zeros


def is_tar(path: Path) -> bool:
    """Whether the file is a tar, also inside of gzip."""
    try:
        with _opened(path) as file:
            head = file.read(_MAGIC[0] + len(_MAGIC[1]))
    except (OSError, EOFError, zlib.error):
        return False
    return head[_MAGIC[0] :] == _MAGIC[1]


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
            entries = _entries(plain)
        self._take(entries)

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


def _entries(path: Path) -> list[Entry]:
    entries = []
    size = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as archive:
            for count, member in enumerate(archive):
                if count >= MAX_ENTRIES:
                    raise too_large(f"has more than {MAX_ENTRIES} entries")
                name = member.name.removeprefix("./")
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise unsafe_names(f"has an entry {name[:120]!r} that is a link or a device")
                if name.startswith("/") or "\\" in name or ".." in name.split("/") or "" in name.split("/"):
                    raise unsafe_names(f"has an entry {name[:120]!r} that points outside of it")
                if member.offset_data + member.size > size:
                    raise damaged(f"entry {name[:120]!r} is cut off")
                entries.append(Entry(name, member.size, member.offset_data, member.size, compressed=False, crc=0))
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise damaged(str(error)) from error
    return entries
