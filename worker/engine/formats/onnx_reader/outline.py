"""An ONNX file without its large weights: what protobuf has to parse, and where the rest lies.

protobuf copies all that it reads, and the checker copies it again. So the file is walked first, and the ``raw_data``
of every large initializer is left out: its bytes are used where they lie, in a memory map of the file.
"""

from collections.abc import Iterator
from typing import Final

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

#: Smallest ``raw_data`` that is left out, in bytes.
LARGE: Final = 64 << 10
#: What stands for it: the checker wants every tensor to have a value.
PLACEHOLDER: Final = b"\0"

_GRAPH, _INITIALIZER, _NAME, _RAW_DATA = 7, 5, 8, 9
_BYTES: Final = 2
_FIXED: Final = {1: 8, 5: 4}

#: Number and type of a field, where it starts, where its content starts, where it ends.
Field = tuple[int, int, int, int, int]


def outline(data: memoryview) -> tuple[bytes, dict[str, memoryview]]:
    """A serialized model as `onnx.ModelProto.ParseFromString` takes it, and the bytes of the weights left out, by name.

    Raises:
        DecodeError: not a sequence of fields, or two large weights of one name.
    """
    large: dict[str, memoryview] = {}
    return _copied(data, 0, len(data), (_GRAPH, _INITIALIZER), large), large


def _copied(data: memoryview, start: int, end: int, path: tuple[int, ...], large: dict[str, memoryview]) -> bytes:
    """The message between `start` and `end`, with the messages at `path` inside of it in outline."""
    if not path:
        return _tensor(data, start, end, large)
    parts: list[bytes | memoryview] = []
    kept = start
    for number, kind, begin, content, stop in _fields(data, start, end):
        if number == path[0] and kind == _BYTES:
            inner = _copied(data, content, stop, path[1:], large)
            parts += [data[kept:begin], _header(number, len(inner)), inner]
            kept = stop
    return b"".join([*parts, data[kept:end]])


def _tensor(data: memoryview, start: int, end: int, large: dict[str, memoryview]) -> bytes:
    if end - start < LARGE:
        return bytes(data[start:end])
    parts: list[bytes | memoryview] = []
    name, raw, kept = "", None, start
    for number, kind, begin, content, stop in _fields(data, start, end):
        if number == _NAME and kind == _BYTES:
            name = bytes(data[content:stop]).decode("utf-8", "replace")
        if number == _RAW_DATA and kind == _BYTES and stop - content >= LARGE:
            raw = data[content:stop]
            parts += [data[kept:begin], _header(_RAW_DATA, len(PLACEHOLDER)), PLACEHOLDER]
            kept = stop
    if raw is not None:
        if name in large:
            raise DecodeError(f"two weights are called {name[:80]!r}")
        large[name] = raw
    return b"".join([*parts, data[kept:end]])


def _fields(data: memoryview, start: int, end: int) -> Iterator[Field]:
    position = start
    while position < end:
        tag, content = _varint(data, position, end)
        kind = tag & 7
        if kind == 0:
            _, stop = _varint(data, content, end)
        elif kind == _BYTES:
            length, content = _varint(data, content, end)
            stop = content + length
        elif kind in _FIXED:
            stop = content + _FIXED[kind]
        else:
            raise DecodeError(f"a field of unknown type at byte {position}")
        if stop > end:
            raise DecodeError(f"the field at byte {position} goes beyond its end")
        yield tag >> 3, kind, position, content, stop
        position = stop


def _varint(data: memoryview, start: int, end: int) -> tuple[int, int]:
    """The number at `start`, and where it ends."""
    value = 0
    for index in range(start, min(start + 10, end)):
        byte = data[index]
        value |= (byte & 0x7F) << (7 * (index - start))
        if byte < 0x80:
            return value, index + 1
    raise DecodeError(f"no number at byte {start}")


def _header(number: int, length: int) -> bytes:
    """Tag and length of a field of bytes."""
    encoded = bytearray([number << 3 | _BYTES])
    while length >= 0x80:
        encoded.append(length & 0x7F | 0x80)
        length >>= 7
    encoded.append(length)
    return bytes(encoded)
