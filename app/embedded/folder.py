"""The data folder: everything that an embedded service keeps, and the lock that lets only one use it.

modelpress.json   marks the folder as ours: format of the layout, version that wrote it last
lock              held (flock) by the supervisor and its two servers
secrets.json      passwords of the servers and the pepper of API keys, made at the first start (0600)
admin.key         the first API key (0600)
runtime           where the unix sockets of the running servers are
postgres/ valkey/ store/   what must be backed up, together with secrets.json
work/ logs/       scratch of running jobs; logs of every child
"""

import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version as installed_version
from pathlib import Path

from app.embedded.process import Account, EmbeddedError
from app.embedded.runtime import make_runtime_folder

FORMAT = 1
VERSION = installed_version("modelpress-server")
_LOCK_PATIENCE_S = 3.0  # servers of a supervisor that was killed a moment ago need this to go


class FolderInUseError(EmbeddedError):
    """Another supervisor runs on the same data folder."""

    exit_code = 3


@dataclass(frozen=True)
class Secrets:
    """What is made once per data folder."""

    postgres_password: str
    valkey_password: str
    key_pepper: str


@dataclass(frozen=True)
class DataFolder:
    """An open data folder; `lock` is the descriptor of its lock, to be inherited by the servers."""

    path: Path
    lock: int
    secrets: Secrets

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def log(self, name: str) -> Path:
        """The log of one child."""
        return self.path / "logs" / f"{name}.log"

    def make_runtime(self, account: Account | None) -> Path:
        """A fresh folder for sockets; the one that a killed predecessor left is removed."""
        note = self.path / "runtime"
        self.remove_runtime()
        folder = make_runtime_folder(account)
        note.write_text(f"{folder}\n")
        return folder

    def remove_runtime(self) -> None:
        """Removes the folder for sockets."""
        note = self.path / "runtime"
        if note.exists():
            folder = Path(note.read_text().strip())
            if folder.name.startswith("mp-"):
                shutil.rmtree(folder, ignore_errors=True)
            note.unlink()

    def close(self) -> None:
        """Lets go of the lock."""
        os.close(self.lock)


def open_data_folder(path: Path) -> DataFolder:
    """Opens `path`, making it at the first start.

    Raises:
        FolderInUseError: another supervisor has it.
        EmbeddedError: it is not ours, or was written by a newer version.
    """
    path = path.absolute()
    _check_is_ours(path)
    with _named_errors(path), ExitStack() as undo:
        path.mkdir(mode=_passable(), parents=True, exist_ok=True)
        lock = _take_lock(path)
        undo.callback(os.close, lock)
        _check_format(path)
        for name in ("logs", "store"):
            (path / name).mkdir(mode=0o700, exist_ok=True)
        (path / "work").mkdir(mode=_passable(), exist_ok=True)
        folder = DataFolder(path, lock, _load_secrets(path))
        undo.pop_all()
    return folder


def read_running(path: Path) -> tuple[Secrets, Path]:
    """Secrets and folder of sockets of the service that runs on the data folder `path`, without opening it.

    Raises:
        EmbeddedError: none runs there.
    """
    try:
        sockets = Path((path / "runtime").read_text().strip())
        return _load_secrets(path), sockets
    except OSError as error:
        raise EmbeddedError(f"no embedded service runs on {path}: {error.strerror}: {error.filename}") from error


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner may read, whole or not at all, and safe from a power cut."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _passable() -> int:
    """Mode of folders on the way to jobs' files. A root's jobs run as other users, and must get to theirs."""
    return 0o711 if os.geteuid() == 0 else 0o700


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EmbeddedError(f"the data folder {path} cannot be used: {error.strerror}: {error.filename}") from error


def _check_is_ours(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise EmbeddedError(f"{path} is not a folder")
    if not path.exists() or (path / "lock").exists() or (path / "modelpress.json").exists():
        return
    if any(path.iterdir()):
        raise EmbeddedError(
            f"{path} is not empty and was not made by Modelpress; give an empty or a new folder with --data"
        )


def _take_lock(path: Path) -> int:
    lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + _LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                owner = os.pread(lock, 32, 0).decode().strip()
                os.close(lock)
                raise FolderInUseError(
                    f"another modelpress-server (process {owner}) is running on {path}; "
                    "stop it first, or give another folder with --data"
                ) from None
            time.sleep(0.05)
        else:
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
            return lock


def _check_format(path: Path) -> None:
    marker = path / "modelpress.json"
    if marker.exists():
        try:
            found = json.loads(marker.read_text())
            written_format, version = int(found["format"]), str(found["version"])
        except (ValueError, KeyError, TypeError) as error:
            raise EmbeddedError(f"{marker} is damaged: {error!r}; restore it from a backup") from error
        if written_format > FORMAT:
            raise EmbeddedError(
                f"{path} was written by Modelpress {version}, which is newer than this one ({VERSION}): "
                "upgrade, or restore a backup made by this version"
            )
    write_private(marker, json.dumps({"format": FORMAT, "version": VERSION}) + "\n")


def _load_secrets(path: Path) -> Secrets:
    file = path / "secrets.json"
    if not file.exists():
        if (path / "postgres").exists():
            raise EmbeddedError(f"{file} is missing: without it the data cannot be opened; restore it from a backup")
        write_private(file, json.dumps(asdict(Secrets(*(secrets.token_hex(24) for _ in range(3)))), indent=2) + "\n")
    try:
        return Secrets(**json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise EmbeddedError(f"{file} is damaged: {error!r}; restore it from a backup") from error
