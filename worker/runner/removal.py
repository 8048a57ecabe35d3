"""Deleting a tree whose maker may have tried to keep it: folders without permissions, or deeper than any path.

Workers that are not root run jobs as their own user, which is bound by the modes of the folders that it made.
"""

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_OWNER = 0o700
_LEVELS = 32
_FOLDER = os.O_DIRECTORY | os.O_CLOEXEC

log = logging.getLogger(__name__)


def remove_tree(path: Path, *, last: str = "") -> None:
    """Deletes the folder `path` and all below it, its file `last` after everything else. Follows no link.

    What lies deep is moved to the top and emptied from there, so that depth costs neither descriptors nor stack. What
    cannot be deleted stays, and the log says so.
    """
    try:
        with opened(path) as top:
            pending = _empty(top, top, kept=last)
            while pending:
                with suppress(OSError):  # the end tells: the folder is not empty then
                    name = pending.pop()
                    with opened(name, top) as folder:
                        pending += _empty(folder, top)
                    os.rmdir(name, dir_fd=top)
            if last:
                with suppress(FileNotFoundError):
                    os.unlink(last, dir_fd=top)
        path.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("%s could not be deleted: %s", path, error)


@contextmanager
def opened(name: str | Path, above: int | None = None) -> Iterator[int]:
    """The folder `name`, which must not be a link, opened for reading and writing whatever its mode was.

    Raises:
        OSError: it is no folder, or belongs to someone else who keeps it closed.
    """
    found = os.open(name, os.O_PATH | os.O_NOFOLLOW | _FOLDER, dir_fd=above)
    try:
        itself = Path(f"/proc/self/fd/{found}")
        if os.fstat(found).st_mode & _OWNER != _OWNER:
            with suppress(PermissionError):  # another user's: root may open it nevertheless
                itself.chmod(_OWNER)
        folder = os.open(itself, os.O_RDONLY | _FOLDER)
    finally:
        os.close(found)
    try:
        yield folder
    finally:
        os.close(folder)


def _empty(folder: int, top: int, *, levels: int = _LEVELS, kept: str = "") -> list[str]:
    """Deletes what is in `folder`, but for what lies `levels` deeper, which it moves to `top`; the names there."""
    moved = []
    with os.scandir(folder) as found:
        entries = list(found)
    for entry in entries:
        with suppress(OSError):
            if entry.is_dir(follow_symlinks=False):
                with opened(entry.name, folder) as below:  # also one that moves: it must be writable for that
                    if levels:
                        moved += _empty(below, top, levels=levels - 1)
                    else:
                        moved.append(_move(entry.name, folder, top))
                        continue
                os.rmdir(entry.name, dir_fd=folder)
            elif entry.name != kept:
                os.unlink(entry.name, dir_fd=folder)
    return moved


def _move(name: str, folder: int, top: int) -> str:
    fresh = secrets.token_hex(8)
    os.rename(name, fresh, src_dir_fd=folder, dst_dir_fd=top)
    return fresh
