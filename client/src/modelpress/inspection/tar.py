"""Tar archives, read forwards: names and sizes of regular files, without unpacking anything."""

import gzip
import zlib
from collections.abc import Iterator
from typing import IO, Final, cast

from modelpress.inspection.report import Refused
from modelpress.inspection.stream import Damaged, Stream

BLOCK: Final = 512
_MAX_NAME: Final = 4096
_MAX_EXTENDED: Final = 1 << 20
_MAX_MEMBERS: Final = 100_000
#: Weights hardly compress: what grows more than this was made to grow.
_MAX_RATIO: Final = 50
#: Tars are padded, so that small ones grow more.
_SMALL: Final = 1 << 20
_FILES: Final = (b"0", b"\0", b"7")
_LONG_NAME, _PAX, _GLOBAL_PAX, _FOLDER = b"L", b"x", b"g", b"5"


def is_tar(head: bytes) -> bool:
    """Whether these are the first 512 bytes of a tar archive."""
    return len(head) >= BLOCK and head[257:262] == b"ustar"


def is_tgz(file: IO[bytes]) -> bool:
    """Whether a gzip file begins with a tar archive."""
    try:
        return is_tar(gzip.GzipFile(fileobj=file).read(BLOCK))
    except (OSError, EOFError, ValueError, zlib.error):
        return False


def opened(file: IO[bytes], size: int, *, compressed: bool) -> Stream:
    """The archive as a stream, from its beginning."""
    file.seek(0)
    if not compressed:
        return Stream(file, size)
    return Stream(cast(IO[bytes], gzip.GzipFile(fileobj=file)), max(_MAX_RATIO * size, _SMALL), seekable=False)


def members(stream: Stream) -> Iterator[tuple[str, int]]:
    """Name and size of each regular file; the caller may read from the stream up to that size before it goes on.

    Raises:
        Refused: links, devices, names that leave the folder, more members than a model has.
        Damaged: what is no tar archive.
    """
    long = ""
    for _ in range(_MAX_MEMBERS):
        if stream.size - stream.position < BLOCK:
            return
        header = stream.read(BLOCK)
        if not header.strip(b"\0"):
            return
        size, kind = _number(header[124:136]), header[156:157]
        _check_sum(header)
        end = stream.position + size
        if kind in (_LONG_NAME, _PAX):
            data = stream.read(min(size, _MAX_EXTENDED))
            long = data.rstrip(b"\0").decode("utf-8", "replace") if kind == _LONG_NAME else _pax_path(data) or long
        elif kind in _FILES:
            name, long = long or _name(header), ""
            yield _checked(name), size
        elif kind not in (_FOLDER, _GLOBAL_PAX):
            raise Refused(
                "archive_unsafe_names", f"The archive has an entry {_name(header)[:120]!r} that is a link or a device."
            )
        else:
            long = ""
        stream.skip(end + -size % BLOCK - stream.position)
    raise Refused("archive_too_large", f"The archive has more than {_MAX_MEMBERS} entries.")


def _name(header: bytes) -> str:
    name, prefix = (part.partition(b"\0")[0].decode("utf-8", "replace") for part in (header[:100], header[345:500]))
    return f"{prefix}/{name}" if prefix and header[257:263] == b"ustar\0" else name


def _checked(name: str) -> str:
    parts = name.removeprefix("./").split("/")
    if name.startswith("/") or ".." in parts or "\\" in name or len(name) > _MAX_NAME:
        raise Refused("archive_unsafe_names", f"The archive has an entry {name[:120]!r} that points outside of it.")
    return "/".join(parts)


def _number(field: bytes) -> int:
    """Octal text, or GNU's binary form for what is larger than 8 GiB."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[4:], "big")
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError as error:
        raise Damaged("a header of it makes no sense") from error


def _check_sum(header: bytes) -> None:
    if sum(header[:148]) + sum(header[156:]) + 8 * ord(" ") != _number(header[148:156]):
        raise Damaged("a header of it makes no sense")


def _pax_path(data: bytes) -> str:
    """The ``path`` among records of the form ``length key=value``."""
    while data:
        length, _, _ = data.partition(b" ")
        size = int(length) if length.isdigit() and len(length) < 8 else 0
        if size == 0:
            return ""
        key, _, value = data[len(length) + 1 : size - 1].partition(b"=")
        if key == b"path":
            return value.decode("utf-8", "replace")
        data = data[size:]
    return ""
