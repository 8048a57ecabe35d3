"""The walls around a job's process: one table, each entered in order between fork and exec, each probed once.

==================  ====================================================================================
limits              memory (private data), file size, open files, processes, CPU time, no core dumps
namespaces          a network without interfaces and IPC of its own
user                a user of its own, that no other job and no service shares (where the worker is root)
capabilities        none, also for root
no_new_privs        no exec gains privileges
landlock            files: system and libraries read-only, own inputs read-only, own output writable
seccomp             no sockets, ptrace, mounts, kernel modules, namespaces, io_uring, ...
==================  ====================================================================================

A wall that the system does not allow is reported (log, worker's capabilities) and left out; `require_sandbox` makes it
fatal. This module is imported by the small launcher: standard library and landlockpy only.
"""

import json
import os
import resource
import sys
import sysconfig
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import landlockpy

from worker.runner import linux, seccomp

_READ = landlockpy.AccessFS.READ_FILE | landlockpy.AccessFS.READ_DIR
_READ_RUN = _READ | landlockpy.AccessFS.EXECUTE
_WRITE = _READ | landlockpy.fs_for_abi(1) & ~landlockpy.AccessFS.EXECUTE
_WRITE = (_WRITE | landlockpy.AccessFS.TRUNCATE | landlockpy.AccessFS.REFER) & ~(
    landlockpy.AccessFS.MAKE_CHAR | landlockpy.AccessFS.MAKE_BLOCK
)
_DEVICE = _READ | landlockpy.AccessFS.WRITE_FILE | landlockpy.AccessFS.IOCTL_DEV

#: Users without an account: the first range where the system knows such numbers, else inside a 16-bit mapping.
_USERS = ((1_900_000_000, 60_000), (60_000, 5_000))
_OPEN_FILES = 4096


@dataclass(frozen=True)
class Confinement:
    """What one process may do.

    Attributes:
        walls: names in `WALLS` that are entered.
        read: paths readable beside the system and the libraries.
        write: paths in which it may create, change and delete files.
        devices: device files it may use (the GPU's).
        memory_bytes: limit of private data of each process; 0: none (CUDA reserves far more than it uses).
        cpu_s: CPU time of each process.
        uid: the user (and group) to become when started as root.
        keep_search: keep the capability to read any path, so that an interpreter in a private home can be reached;
            only with Landlock, which still refuses everything that is not in its list.
    """

    walls: tuple[str, ...]
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    memory_bytes: int = 0
    file_bytes: int = 64 * 1024**3
    processes: int = 512
    cpu_s: int = 86_400
    uid: int | None = None
    keep_search: bool = False

    def to_json(self) -> str:
        """For the launcher."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Confinement":
        """What `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        return cls(**values)


def system_paths() -> tuple[str, ...]:
    """What every job may read and run: system libraries, the interpreter, installed packages, this code."""
    own = Path(__file__).resolve().parents[1]
    candidates = [
        "/usr",
        "/lib",
        "/lib64",
        "/bin",
        "/sbin",
        sys.prefix,
        sys.base_prefix,
        *sysconfig.get_paths().values(),
        str(own),
        str(own.with_name("app")),
    ]
    return tuple(dict.fromkeys(str(path) for path in map(Path, candidates) if path.exists()))


#: Read-only: what the C library, the loader and the runtimes look up about the system.
_FACTS = (
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/group",
    "/etc/os-release",
    "/etc/alternatives",
    "/etc/mime.types",
    "/proc",
    "/sys",
)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - multiprocessing's semaphores live here; sticky, and the user is the job's own


def _limits(confinement: Confinement) -> None:
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: _OPEN_FILES,
        resource.RLIMIT_FSIZE: confinement.file_bytes,
        resource.RLIMIT_CPU: confinement.cpu_s,
        resource.RLIMIT_NPROC: confinement.processes + (_own_threads() if os.getuid() != 0 else 0),
    }
    if confinement.memory_bytes:
        limits[resource.RLIMIT_DATA] = confinement.memory_bytes
    for limit, wanted in limits.items():
        hard = resource.getrlimit(limit)[1]
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(limit, (value, value))


def _own_threads() -> int:
    """Threads that this user runs already: the kernel counts them against the limit."""
    total = 0
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and entry.stat().st_uid == os.getuid():
                total += len(os.listdir(entry / "task"))  # noqa: PTH208 - only the number is wanted
        except OSError:  # ended meanwhile
            continue
    return total


def _namespaces(confinement: Confinement) -> None:
    if os.geteuid() == 0:
        linux.unshare(linux.CLONE_NEWNET | linux.CLONE_NEWIPC)
        return
    uid, gid = os.getuid(), os.getgid()
    linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNET | linux.CLONE_NEWIPC)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def _user(confinement: Confinement) -> None:
    if os.geteuid() != 0:
        return  # the worker itself is an ordinary user
    if confinement.uid is None:
        raise PermissionError("no user to become was given")
    linux.untie_capabilities_from_users()
    os.setgroups([])
    os.setresgid(confinement.uid, confinement.uid, confinement.uid)
    os.setresuid(confinement.uid, confinement.uid, confinement.uid)


def _capabilities(confinement: Confinement) -> None:
    linux.limit_capabilities(frozenset([linux.CAP_DAC_READ_SEARCH] if confinement.keep_search else []))


def _no_new_privs(confinement: Confinement) -> None:
    linux.no_new_privileges()


def _landlock(confinement: Confinement) -> None:
    rules = (
        (_READ_RUN, system_paths()),
        (_READ, (*_FACTS, *confinement.read)),
        (_DEVICE, (*_DEVICES, *confinement.devices)),
        (_WRITE, (_SHARED_MEMORY, *confinement.write)),
    )
    with landlockpy.Ruleset(scoped=landlockpy.Scope.SIGNAL | landlockpy.Scope.ABSTRACT_UNIX_SOCKET) as ruleset:
        for access, paths in rules:
            for path in paths:
                _allow(ruleset, path, access)
        ruleset.restrict()


def _allow(ruleset: landlockpy.Ruleset, path: str, access: landlockpy.AccessFS) -> None:
    try:
        directory = Path(path).is_dir()
        file_only = landlockpy.AccessFS.EXECUTE | landlockpy.AccessFS.WRITE_FILE | landlockpy.AccessFS.READ_FILE
        file_only |= landlockpy.AccessFS.TRUNCATE | landlockpy.AccessFS.IOCTL_DEV
        ruleset.allow_path(path, access if directory else access & file_only)
    except FileNotFoundError:
        return


def _seccomp(confinement: Confinement) -> None:
    if not seccomp.supported():
        raise OSError(f"no call numbers for {os.uname().machine}")
    linux.install_filter(seccomp.program())


#: Name -> how it is entered; in this order.
WALLS: dict[str, Callable[[Confinement], None]] = {
    "limits": _limits,
    "namespaces": _namespaces,
    "user": _user,
    "capabilities": _capabilities,
    "no_new_privs": _no_new_privs,
    "landlock": _landlock,
    "seccomp": _seccomp,
}


def enter(confinement: Confinement) -> None:
    """Puts the walls of `confinement` around this process; there is no way back."""
    for name, wall in WALLS.items():
        if name in confinement.walls:
            wall(confinement)


@dataclass(frozen=True)
class Standing:
    """What the probe found.

    Attributes:
        walls: those that stand.
        missing: name -> why not.
        first_uid / uids: range of users for jobs; 0 where the worker is not root.
        keep_search: see `Confinement`.
    """

    walls: tuple[str, ...]
    missing: dict[str, str]
    first_uid: int = 0
    uids: int = 0
    keep_search: bool = False

    def uid(self, slot: int) -> int | None:
        """The user of this slot's jobs, or None where they run as the worker's user."""
        return self.first_uid + slot % self.uids if self.uids else None

    @classmethod
    def from_json(cls, text: str) -> "Standing":
        """What the launcher's probe prints."""
        values = json.loads(text)
        return cls(**{**values, "walls": tuple(values["walls"])})


def probe(folder: Path) -> Standing:
    """Tries every wall on a forked copy of this process (which must have no other thread).

    Args:
        folder: the work folder; a job's user must be able to reach it.
    """
    base = Confinement(walls=())
    missing = {name: why for name in WALLS if name != "user" and (why := _try(replace(base, walls=(name,)), ()))}
    if "landlock" in missing and os.geteuid() != 0 and "no_new_privs" not in missing:
        why = _try(replace(base, walls=("no_new_privs", "landlock")), ())
        missing = _updated(missing, "landlock", why)
    if "seccomp" in missing and "no_new_privs" not in missing:
        missing = _updated(missing, "seccomp", _try(replace(base, walls=("no_new_privs", "seccomp")), ()))
    first, uids, keep = 0, 0, False
    if os.geteuid() == 0:
        first, uids, keep, why = _choose_user(folder, with_search="landlock" not in missing)
        missing = _updated(missing, "user", why)
    return Standing(tuple(name for name in WALLS if name not in missing), missing, first, uids, keep)


def _updated(missing: dict[str, str], name: str, why: str) -> dict[str, str]:
    rest = {key: value for key, value in missing.items() if key != name}
    return {**rest, name: why} if why else rest


def _choose_user(folder: Path, *, with_search: bool) -> tuple[int, int, bool, str]:
    """First user, number of users, whether the capability to search is needed, and why none will do."""
    why = ""
    needed = (Path(sys.executable), Path(os.__file__), Path(__file__), folder)
    for first, uids in _USERS:
        for keep in (False, True) if with_search else (False,):
            walls = ("user", "capabilities")
            why = _try(Confinement(walls=walls, uid=first + uids - 1, keep_search=keep), needed)
            if not why:
                return first, uids, keep, ""
    return 0, 0, False, f"a job's own user cannot reach the interpreter or the work folder: {why}"


def _try(confinement: Confinement, needed: Iterable[Path]) -> str:
    """Enters walls in a forked child; the empty string, or what went wrong."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            enter(confinement)
            for path in needed:
                path.resolve(strict=True).stat()
                if not os.access(path, os.R_OK):
                    raise PermissionError(f"{path} cannot be read")
            os._exit(0)
        except OSError as error:
            os.write(writer, str(error).encode()[:500])
            os._exit(1)
        finally:
            os._exit(2)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read().decode(errors="replace")
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return told or (f"ended with {status}" if status else "")
