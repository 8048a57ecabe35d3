"""The private folder of one attempt, and how files are taken out of it without trusting who wrote them.

::

    WORK_DIR/attempts/NAME/          owner: the job's user, mode 0700
        lock                         held (flock) while the supervisor lives; a sweep removes what nobody holds
        inputs/                      written by the supervisor, read-only for the job
        output/ tmp/ home/           written by the job
    WORK_DIR/attempts/NAME.taken/    files taken out of output/; the job cannot reach it
"""

import errno
import fcntl
import os
import secrets
import shutil
import stat
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from worker.runner.removal import opened, remove_tree

#: What the system says where a disk or a quota is used up.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_ATTEMPTS = "attempts"
_TAKEN = ".taken"
_LOCK = "lock"
#: Between the making of a folder and of its lock lies far less, in seconds.
_UNLOCKED_S = 600.0
_CHUNK = 1024**2
_MAX_ENTRIES = 10_000


class UntrustedFileError(Exception):
    """The job's process named or wrote a file that is not acceptable; the message says what."""


@dataclass(frozen=True)
class JobFolder:
    """One attempt's folder; `lock` is the open lock file."""

    path: Path
    lock: int

    @classmethod
    def create(cls, work_dir: Path, name: str, uid: int | None) -> "JobFolder":
        """Makes the folders; `uid` is the job's user where it has one of its own."""
        attempts = work_dir / _ATTEMPTS
        attempts.mkdir(mode=0o711, parents=True, exist_ok=True)
        path = attempts / f"{name}-{secrets.token_hex(4)}"
        path.mkdir(mode=0o700)
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = cls(path, lock)
        folder.taken.mkdir(mode=0o700)
        folder.inputs.mkdir(mode=0o755)
        for own in (folder.output, folder.tmp, folder.home, path):
            own.mkdir(mode=0o700, exist_ok=True)
            if uid is not None:
                os.chown(own, uid, uid)
        return folder

    @property
    def inputs(self) -> Path:
        """Read-only for the job."""
        return self.path / "inputs"

    @property
    def output(self) -> Path:
        """Where the job leaves artifacts and checkpoints."""
        return self.path / "output"

    @property
    def tmp(self) -> Path:
        """The job's TMPDIR."""
        return self.path / "tmp"

    @property
    def home(self) -> Path:
        """The job's HOME: caches of libraries."""
        return self.path / "home"

    @property
    def taken(self) -> Path:
        """Out of the job's reach."""
        return self.path.with_name(self.path.name + _TAKEN)

    def take(self, name: str) -> Path:
        """Copies the file `name` of the output folder to where the job cannot change it any more.

        Raises:
            UntrustedFileError: the name leaves the folder, or it is not a plain file.
        """
        source = _open_plain(self.output, name)
        try:
            copy = self.taken / secrets.token_hex(8)
            with os.fdopen(os.dup(source), "rb") as read, copy.open("xb") as write:
                shutil.copyfileobj(read, write, _CHUNK)
        finally:
            os.close(source)
        return copy

    def remove(self) -> None:
        """Deletes everything; what a job left in odd states does not stop it."""
        _remove(self.path)
        os.close(self.lock)


def sweep(work_dir: Path) -> list[str]:
    """Deletes the folders whose supervisor is gone; their names."""
    swept = []
    attempts = work_dir / _ATTEMPTS
    for path in sorted(attempts.iterdir()) if attempts.is_dir() else []:
        if path.name.endswith(_TAKEN):
            if not path.with_name(path.name.removesuffix(_TAKEN)).exists():
                remove_tree(path)
            continue
        if _abandoned(path):
            _remove(path)
            swept.append(path.name)
    return swept


def _abandoned(path: Path) -> bool:
    """Whether nobody holds the folder's lock, or it has none that opens and is not just being made."""
    try:
        with opened(path) as folder:  # a job may have closed it even to us
            try:
                handle = os.open(_LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=folder)
            except OSError:  # its age by ctime: jobs can set the others
                return time.time() - os.fstat(folder).st_ctime > _UNLOCKED_S
    except OSError:  # just being removed
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def _remove(path: Path) -> None:
    remove_tree(path.with_name(path.name + _TAKEN))
    remove_tree(path, last=_LOCK)  # who is killed meanwhile leaves a folder that a sweep finds


def _open_plain(folder: Path, name: str) -> int:
    """Opens `name` below `folder` step by step, following no link; the descriptor of a regular file."""
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\0" in name:
        raise UntrustedFileError(f"{name!r} is not a name inside the output folder")
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            kind = os.O_RDONLY | os.O_NONBLOCK if last else os.O_PATH | os.O_DIRECTORY
            below = os.open(part, kind | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle)
            os.close(handle)
            handle = below
    except OSError as error:
        os.close(handle)
        raise UntrustedFileError(f"{name!r} cannot be read: {error.strerror}") from error
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        os.close(handle)
        raise UntrustedFileError(f"{name!r} is not a plain file of its own")
    return handle


def unpack_checkpoint(archive: Path, target: Path, max_bytes: int) -> None:
    """Unpacks a checkpoint that an earlier attempt (not trusted) left.

    Raises:
        UntrustedFileError: links, names that leave the folder, too many or too large entries, not a zip.
    """
    target.mkdir(mode=0o755)
    left = max_bytes
    try:
        with zipfile.ZipFile(archive) as source:
            entries = source.infolist()
            if len(entries) > _MAX_ENTRIES:
                raise UntrustedFileError(f"the checkpoint has {len(entries)} entries")
            for entry in entries:
                left = _unpack_entry(source, entry, target, left)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise UntrustedFileError(f"the checkpoint cannot be read: {error}") from error


def _unpack_entry(source: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, left: int) -> int:
    name = PurePosixPath(entry.filename)
    if name.is_absolute() or ".." in name.parts or stat.S_ISLNK(entry.external_attr >> 16):
        raise UntrustedFileError(f"the checkpoint has an entry {entry.filename!r}")
    path = target.joinpath(*name.parts)
    if entry.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        return left
    path.parent.mkdir(parents=True, exist_ok=True)
    with source.open(entry) as read, path.open("xb") as write:
        while chunk := read.read(_CHUNK):
            left -= len(chunk)
            if left < 0:
                raise UntrustedFileError("the checkpoint unpacks to more than a job may write")
            write.write(chunk)
    return left
