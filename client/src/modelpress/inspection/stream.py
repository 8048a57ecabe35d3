"""Bytes of a file, of an entry of an archive or of a tar: read once, forwards, and only where the structure is."""

from typing import IO

CHUNK = 1 << 20


class Damaged(Exception):
    """The bytes end early, or are not what they should be."""


class Stream:
    """A file from where it stands, `size` bytes long. What is skipped is not read, where the file can seek."""

    def __init__(self, file: IO[bytes], size: int, *, seekable: bool = True) -> None:
        self._file = file
        self._seekable = seekable
        self.size = size
        self.position = 0

    def read(self, count: int) -> bytes:
        """Exactly so many bytes."""
        if count > self.size - self.position:
            raise Damaged("it is cut off")
        data = self._file.read(count)
        self.position += len(data)
        if len(data) < count:
            raise Damaged("it is cut off")
        return data

    def byte(self) -> int:
        """The next byte."""
        data = self._file.read(1)
        if not data or self.position >= self.size:
            raise Damaged("it is cut off")
        self.position += 1
        return data[0]

    def skip(self, count: int) -> None:
        """Leave out so many bytes."""
        if count > self.size - self.position:
            raise Damaged("it is cut off")
        if self._seekable:
            self._file.seek(count, 1)
            self.position += count
            return
        while count:
            count -= len(self.read(min(count, CHUNK)))
