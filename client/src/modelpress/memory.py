"""Which upload a file is on, remembered beside the user's other caches until the upload is complete."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows: uploads go on after broken connections, and after the process with a given upload_id
    fcntl = None  # type: ignore[assignment]


class Remembered:
    """The upload of one file. Without a place to write, nothing is remembered and everything else works."""

    def __init__(self, file: IO[str] | None) -> None:
        self._file = file
        self.upload_id: str | None = None
        if file is not None:
            with suppress(ValueError):
                told = json.loads(file.read() or "{}").get("upload_id")
                self.upload_id = told if isinstance(told, str) else None

    def keep(self, upload_id: str) -> None:
        """Remembers it, also where the machine loses power now."""
        self.upload_id = upload_id
        if self._file is not None:
            with suppress(OSError):
                self._file.seek(0)
                self._file.truncate()
                json.dump({"upload_id": upload_id}, self._file)
                self._file.flush()
                os.fsync(self._file.fileno())


@contextmanager
def remembered(url: str, path: Path) -> Iterator[Remembered]:
    """What is remembered of `path`, as it is now, and the service at `url`; forgotten where the block ends well.

    The lock ends with its process, however that ends; who does not get it remembers nothing.
    """
    place = _place(url, path)
    file = _locked(place)
    try:
        yield Remembered(file)
        if file is not None:
            with suppress(OSError):
                place.unlink()
    finally:
        if file is not None:
            file.close()


def _locked(place: Path) -> IO[str] | None:
    """The file, for this process alone; None where it cannot be had."""
    if fcntl is None:
        return None
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.fdopen(os.open(place, os.O_RDWR | os.O_CREAT, 0o600), "r+")
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def _place(url: str, path: Path) -> Path:
    """A name for this very content as far as the file system tells: another time of change is another upload."""
    state = path.stat()
    told = json.dumps([url, str(path.resolve()), state.st_size, state.st_mtime_ns])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "modelpress" / "uploads" / f"{hashlib.sha256(told.encode()).hexdigest()[:32]}.json"
