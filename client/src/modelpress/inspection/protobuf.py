"""A walk over protobuf's wire format, bounded whatever the bytes are; tensors are skipped unread."""

from collections.abc import Iterator
from typing import Final

from modelpress.inspection.stream import Damaged, Stream

VARINT: Final = 0
BYTES: Final = 2
_FIXED: Final = {1: 8, 5: 4}
#: As deep as protobuf's own readers go.
MAX_DEPTH: Final = 100
#: Some seconds. A model of a hundred thousand nodes has half of it.
MAX_FIELDS: Final = 2_000_000
MAX_TEXT: Final = 512


class TooLong(Exception):
    """More fields than there is patience for."""


class Wire:
    """The fields of a message and of the messages in it."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._depth = 0
        self._left = MAX_FIELDS

    def fields(self, end: int) -> Iterator[tuple[int, int, int]]:
        """Number, wire type and value of each field up to `end`; of a `BYTES` field, the position where it ends.

        What the caller leaves of a field is skipped. Raises `Damaged` and `TooLong`.
        """
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Damaged("its messages are nested too deeply")
        stream = self.stream
        while stream.position < end:
            self._left -= 1
            if self._left < 0:
                raise TooLong
            tag = stream.varint()
            number, kind = tag >> 3, tag & 7
            value = stream.varint() if kind in (VARINT, BYTES) else 0
            if kind == BYTES:
                value += stream.position
                stop = value
            else:
                stop = stream.position + _FIXED.get(kind, 0)
            if number == 0 or (kind not in (VARINT, BYTES) and kind not in _FIXED) or stop > end:
                raise Damaged("a field of it makes no sense")
            yield number, kind, value
            if stop != stream.position:
                stream.skip(stop - stream.position)
        if stream.position != end:
            raise Damaged("a field of it makes no sense")
        self._depth -= 1

    def text(self, end: int) -> str:
        """A string, cut where it is longer than a name."""
        return self.stream.read(min(end - self.stream.position, MAX_TEXT)).decode("utf-8", "replace")

    def numbers(self, kind: int, value: int, limit: int) -> list[int]:
        """One number, or at most `limit` of a packed list; signed."""
        found = [value] if kind == VARINT else []
        while kind == BYTES and self.stream.position < value and len(found) < limit:
            found.append(self.stream.varint())
        return [signed(number) for number in found]


def signed(number: int) -> int:
    """A number of 64 bits as two's complement."""
    return number - (1 << 64) if number >> 63 else number
