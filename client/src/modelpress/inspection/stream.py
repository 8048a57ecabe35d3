"""Bytes of a file, of an entry of an archive or of a tar: read once, forwards, and only where the structure is."""

from typing import IO, Final

_CHUNK: Final = 1 << 16
_LONGEST_VARINT: Final = 10


class Damaged(Exception):
    """The bytes end early, or are not what they should be."""


class Stream:
    """A file from where it stands, `size` bytes long. What is skipped is not read, where the file can seek.

    Attributes:
        size: of the whole.
        position: bytes read or skipped so far.
    """

    def __init__(self, file: IO[bytes], size: int, *, seekable: bool = True) -> None:
        self._file = file
        self._seekable = seekable
        self._buffer = b""
        self._at = 0  # in the buffer
        self.size = size
        self.position = 0

    def read(self, count: int) -> bytes:
        """Exactly so many bytes."""
        if count > self.size - self.position:
            raise Damaged("it is cut off")
        data = self._buffer[self._at : self._at + count]
        if len(data) < count:
            data += self._file.read(count - len(data))
        if len(data) < count:
            raise Damaged("it is cut off")
        self._moved(count)
        return data

    def varint(self) -> int:
        """A number of at most 64 bits, as protobuf writes it."""
        if len(self._buffer) - self._at < _LONGEST_VARINT:
            left = self.size - self.position - (len(self._buffer) - self._at)
            self._buffer = self._buffer[self._at :] + self._file.read(min(_CHUNK, left))
            self._at = 0
        value = shift = 0
        for byte in self._buffer[self._at : self._at + _LONGEST_VARINT]:
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                self._moved(shift // 7)
                return value & 0xFFFF_FFFF_FFFF_FFFF
        raise Damaged("a number of it is cut off")

    def skip(self, count: int) -> None:
        """Leave out so many bytes."""
        if count > self.size - self.position:
            raise Damaged("it is cut off")
        beyond = count - (len(self._buffer) - self._at)
        self._moved(count)
        if beyond <= 0:
            return
        if self._seekable:
            self._file.seek(beyond, 1)
            return
        while beyond:
            data = self._file.read(min(beyond, _CHUNK))
            if not data:
                raise Damaged("it is cut off")
            beyond -= len(data)

    @property
    def endless(self) -> bool:
        """Whether the size is only the most that may come."""
        return not self._seekable

    def more(self) -> bool:
        """Read on by some bytes, not beyond the size by more than those; False: there are none."""
        count = len(self._file.read(_CHUNK))
        self.position += count
        return count > 0

    def part(self, size: int) -> "Stream":
        """The next `size` bytes; this stream is of no use afterwards, nor is it after `varint`."""
        return Stream(self._file, size, seekable=self._seekable)

    def _moved(self, count: int) -> None:
        self.position += count
        self._at += count
        if self._at >= len(self._buffer):
            self._buffer, self._at = b"", 0
