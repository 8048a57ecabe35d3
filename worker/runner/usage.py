"""What a job holds of the machine: memory of its processes, private and shared, and room on the disk.

Limits of the kernel count neither shared memory nor the sum of all files, and a file without a name is in no folder: it
is found among the open descriptors of the job's processes.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import psutil

#: Where files are memory.
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - looked at, not written to
_BLOCK = 512
#: Below this, what a process shares is not worth asking the kernel who it is shared with.
_WORTH_ASKING = 8 * 1024**2
_UNNAMED, _IN_MEMORY = " (deleted)", ("/memfd:", f"{SHARED_MEMORY}/")


def descendants(pid: int) -> list[psutil.Process]:
    """Every process below `pid`."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def private_bytes(process: psutil.Process) -> int:
    """Resident memory without files mapped and memory shared, which several processes may count."""
    try:
        info = process.memory_info()
    except psutil.Error:
        return 0
    return int(info.rss - info.shared)


def shared_and_disk_bytes(pids: Sequence[int], uid: int | None, folders: Iterable[str]) -> tuple[int, int]:
    """Shared memory and disk that a job takes; takes as long as there are files.

    Args:
        pids: its processes.
        uid: the user that nothing but the job has; None: files of shared memory are not known by their owner.
        folders: where it may write.
    """
    in_memory, on_disk = _unnamed_bytes(pids)
    named = sum(_held(status) for _, status in _shared_files(uid))
    # Mapped memory may lie in files too: taken once, the larger of both.
    shared = max(sum(map(_mapped_bytes, pids)), named + in_memory)
    return shared, on_disk + sum(_held(status) for folder in folders for status in _below(folder))


def remove_shared_files(uid: int | None) -> None:
    """Delete what a job left in shared memory, which would stay there until the machine restarts."""
    for path, _ in _shared_files(uid):
        try:
            path.unlink()
        except OSError:  # gone meanwhile, or a folder
            continue


def _held(status: os.stat_result) -> int:
    """What a file takes, an empty one too."""
    return (status.st_blocks + 1) * _BLOCK


def _shared_files(uid: int | None) -> Iterator[tuple[Path, os.stat_result]]:
    if uid is None:
        return
    for folder, _, names in os.walk(SHARED_MEMORY):
        for name in names:
            path = Path(folder, name)
            try:
                status = path.lstat()
            except OSError:  # gone meanwhile
                continue
            if status.st_uid == uid:
                yield path, status


def _below(folder: str) -> Iterator[os.stat_result]:
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            try:
                yield Path(parent, name).lstat()
            except OSError:  # gone meanwhile
                continue


def _unnamed_bytes(pids: Iterable[int]) -> tuple[int, int]:
    """Bytes in memory and on disk of files that have no name any more, or never had one."""
    held: dict[tuple[int, int], tuple[bool, int]] = {}
    for pid in pids:
        for target, status in _unnamed_files(pid):
            held[status.st_dev, status.st_ino] = (target.startswith(_IN_MEMORY), _held(status))
    in_memory, on_disk = (sum(size for memory, size in held.values() if memory is which) for which in (True, False))
    return in_memory, on_disk


def _unnamed_files(pid: int) -> Iterator[tuple[str, os.stat_result]]:
    """What a process has open without a name; one that is closed meanwhile hides none of the others."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208 - hot, and names are all that is wanted
    except OSError:  # ended meanwhile, or not ours to see
        return
    for name in names:
        path = f"/proc/{pid}/fd/{name}"
        try:
            target = os.readlink(path)  # noqa: PTH115 - hot
            if target.endswith(_UNNAMED):
                yield target, os.stat(path)  # noqa: PTH116 - hot
        except OSError:  # closed meanwhile
            continue


def _mapped_bytes(pid: int) -> int:
    """A process's part of the shared memory that it has mapped: divided by those who have it mapped too."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        own = _kibibytes(status, "RssShmem:")
        return _kibibytes(Path(f"/proc/{pid}/smaps_rollup").read_text(), "Pss_Shmem:") if own > _WORTH_ASKING else own
    except OSError:  # ended meanwhile, or not ours to see
        return 0


def _kibibytes(text: str, key: str) -> int:
    found = next((line.split()[1] for line in text.splitlines() if line.startswith(key)), "0")
    return int(found) * 1024
