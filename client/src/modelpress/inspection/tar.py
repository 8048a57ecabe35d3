"""Tar archives, read forwards: names and sizes of regular files, without unpacking anything."""

import gzip
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Final, cast

from modelpress.inspection.names import leaves, without_top_folder
from modelpress.inspection.report import Refused
from modelpress.inspection.stream import Damaged, Stream

BLOCK: Final = 512
_MAX_EXTENDED: Final = 1 << 20
_MAX_MEMBERS: Final = 100_000
#: Weights hardly compress: what grows more than this was made to grow.
_MAX_RATIO: Final = 50
#: Tars are padded, so that small ones grow more.
_SMALL: Final = 16 << 20
_LONGEST_NUMBER: Final = 20
_OLD_FILE, _FOLDER, _LONG_NAME, _PAX = b"\0", b"5", b"L", b"x"
_FILES: Final = (b"0", _OLD_FILE, b"7")
#: Headers about the next entry: its long name, the name that it links to, anything; and those about all entries.
_EXTENDED: Final = (_LONG_NAME, b"K", _PAX, b"g")


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


def names(opened: Callable[[], Stream]) -> dict[str, str]:
    """Name of each regular file -> its name without the folder that all lie in; everything is read to its end.

    Raises:
        Refused: what `members` refuses, a name twice, gzip that unpacks to more than a model does.
        Damaged: what is no tar archive.
    """
    found: list[str] = []
    try:
        stream = opened()
        found += [name for name, _ in members(stream)]
    except Damaged:
        _drain(opened())  # where it is a bomb, that is what is wrong with it
        raise
    _drain(stream)
    if len(set(found)) != len(found):
        raise _unsafe("has two entries of the same name")
    return {name: stripped for stripped, name in without_top_folder({name: name for name in found}).items()}


def _drain(stream: Stream) -> None:
    """Read gzip to the end, where its checksum is; a file on disk needs none of that."""
    if not stream.endless:
        return
    while stream.more():
        if stream.position > stream.size:
            raise Refused(
                "archive_too_large",
                f"The archive unpacks to more than {_MAX_RATIO} times its size, which no saved model does. Save the "
                "model again.",
            )


@dataclass
class _Ahead:
    """What headers said about the entry that follows them."""

    name: str = ""
    size: int | None = None


def members(stream: Stream) -> Iterator[tuple[str, int]]:
    """Name and size of each regular file; the caller may read from the stream up to that size before it goes on.

    Raises:
        Refused: links, devices, names that leave the folder, more members than a model has.
        Damaged: what is no tar archive.
    """
    ahead = _Ahead()
    for _ in range(_MAX_MEMBERS):
        if stream.size - stream.position < BLOCK:
            return
        header = stream.read(BLOCK)
        if not header.strip(b"\0"):
            return
        _check_sum(header)
        kind, size = header[156:157], _number(header[124:136])
        if kind in _EXTENDED:
            end = _end(stream, size)
            if size > _MAX_EXTENDED:
                raise Refused(
                    "archive_too_large",
                    f"The archive has a header of {size} bytes, which no saved model does. Save the model again.",
                )
            _read_ahead(kind, stream.read(size), ahead)
        else:
            name, size = (ahead.name or _name(header)).removeprefix("./"), size if ahead.size is None else ahead.size
            ahead = _Ahead()
            if kind == _FOLDER or (kind == _OLD_FILE and name.endswith("/")):
                continue  # whatever its size says, nothing of it follows
            _check_name(name, kind)
            end = _end(stream, size)
            yield name, size
        stream.skip(min(end + -size % BLOCK, stream.size) - stream.position)
    raise Refused(
        "archive_too_large",
        f"The archive has more than {_MAX_MEMBERS} entries, which no saved model does. Save the model again.",
    )


def _end(stream: Stream, size: int) -> int:
    if size > stream.size - stream.position:
        raise Damaged("an entry is cut off")
    return stream.position + size


def _unsafe(what: str) -> Refused:
    return Refused("archive_unsafe_names", f"The archive {what}. Save the model again.")


def _check_name(name: str, kind: bytes) -> None:
    if kind not in _FILES:
        raise _unsafe(f"has an entry {name[:120]!r} that is a link or a device")
    if leaves(name):
        raise _unsafe(f"has an entry {name[:120]!r} that points outside of it")


def _read_ahead(kind: bytes, data: bytes, ahead: _Ahead) -> None:
    if kind == _LONG_NAME:
        ahead.name = data.partition(b"\0")[0].decode("utf-8", "replace")
    while kind == _PAX and data:
        length, _, _ = data.partition(b" ")
        end = int(length) if length.isdigit() and len(length) < 8 else 0
        if not len(length) + 1 < end <= len(data) or data[end - 1 : end] != b"\n":
            raise Damaged("a header makes no sense")
        key, _, value = data[len(length) + 1 : end - 1].partition(b"=")
        if key == b"path":
            ahead.name = value.decode("utf-8", "replace")
        elif key == b"size":
            if not value.isdigit() or len(value) > _LONGEST_NUMBER:
                raise Damaged("a header makes no sense")
            ahead.size = int(value)
        elif key.startswith(b"GNU.sparse."):
            raise _unsafe("has an entry with holes")
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
        raise Damaged("a header makes no sense")
    return int(text, 8)


def _check_sum(header: bytes) -> None:
    """The sum of the bytes, the checksum itself taken as spaces; old programs summed them with a sign."""
    rest = header[:148] + b" " * 8 + header[156:]
    total = sum(rest)
    if _number(header[148:156]) not in (total, total - 256 * sum(byte > 127 for byte in rest)):
        raise Damaged("a header makes no sense")
