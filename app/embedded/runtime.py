"""The short private folder for unix sockets: their paths are limited to 107 bytes, so not the data folder."""

import os
import tempfile
from pathlib import Path

from app.embedded.process import Account, EmbeddedError

_SOCKET_PATH_LIMIT = 107
_LONGEST_NAME = len("/.s.PGSQL.5432.lock")
_SHARED = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))  # noqa: S108 - the folder made there is 0700


def make_runtime_folder(account: Account | None) -> Path:
    """Makes an empty folder (0700, of the servers' user) that the servers can reach."""
    for parent in _candidates(account):
        try:
            folder = Path(tempfile.mkdtemp(prefix="mp-", dir=parent))
        except OSError:  # absent, full or read-only: the next one may do
            continue
        if len(os.fsencode(folder)) + _LONGEST_NAME > _SOCKET_PATH_LIMIT:
            folder.rmdir()
            continue
        if account is not None:
            account.owns(folder)
        return folder
    raise EmbeddedError(
        "no writable folder for unix sockets was found (tried XDG_RUNTIME_DIR, /tmp, /var/tmp, /dev/shm)"
    )


def _candidates(account: Account | None) -> list[Path]:
    own = os.environ.get("XDG_RUNTIME_DIR")
    if account is None and own:
        return [Path(own), *_SHARED]
    return [path for path in _SHARED if account is None or (path.is_dir() and account.can_reach(path))]
