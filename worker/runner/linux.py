"""The few Linux calls that Python does not offer: prctl, unshare and capabilities.

Nothing here allocates much or takes locks, so that it may run between fork and exec.
"""

import ctypes
import os

_LIBC = ctypes.CDLL(None, use_errno=True)

_PR_CAPBSET_DROP = 24
_PR_SET_SECUREBITS = 28
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
CLONE_NEWIPC = 0x08000000

CAP_DAC_READ_SEARCH = 2
_CAP_SETPCAP = 8
#: Securebits, each with its lock (capabilities(7)).
_NO_ROOT, _NO_SETUID_FIXUP = 0b0011, 0b1100


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _prctl(what: str, option: int, *arguments: int) -> None:
    padded = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    _check(_LIBC.prctl(option, *padded), what)


def become_subreaper() -> None:
    """Makes orphans among our descendants our own children."""
    _prctl("PR_SET_CHILD_SUBREAPER", _PR_SET_CHILD_SUBREAPER, 1)


def no_new_privileges() -> None:
    """No exec may gain privileges from here on; also lets an ordinary user install filters."""
    _prctl("PR_SET_NO_NEW_PRIVS", _PR_SET_NO_NEW_PRIVS, 1)


def untie_capabilities_from_users() -> None:
    """A user's number no longer changes capabilities: not setuid (they are dropped one by one later), not exec as root,
    and not access(2), which would otherwise judge without them and tell libraries that a readable file is not."""
    _prctl("PR_SET_SECUREBITS", _PR_SET_SECUREBITS, _NO_ROOT | _NO_SETUID_FIXUP)


def unshare(flags: int) -> None:
    """Leaves the namespaces named by `flags` for fresh ones."""
    _check(_LIBC.unshare(ctypes.c_int(flags)), "unshare")


def limit_capabilities(kept: frozenset[int]) -> None:
    """Gives up every capability but `kept`, for this process and all it will start."""
    header = _CapHeader(_CAPABILITY_VERSION_3, 0)
    data = (_CapData * 2)()
    _check(_LIBC.capget(ctypes.byref(header), data), "capget")
    permitted = data[0].permitted | data[1].permitted << 32
    if permitted >> _CAP_SETPCAP & 1:
        for half in data:
            half.effective = half.permitted
        _check(_LIBC.capset(ctypes.byref(header), data), "capset")
        for capability in range(_last_capability() + 1):
            if capability not in kept:
                _prctl("PR_CAPBSET_DROP", _PR_CAPBSET_DROP, capability)
    mask = sum(1 << capability for capability in kept) & permitted
    for index, half in enumerate(data):
        half.effective = half.permitted = half.inheritable = mask >> 32 * index & 0xFFFFFFFF
    _check(_LIBC.capset(ctypes.byref(header), data), "capset")
    _prctl("PR_CAP_AMBIENT", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in kept:
        if mask >> capability & 1:
            _prctl("PR_CAP_AMBIENT", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability)


def install_filter(program: bytes) -> None:
    """Installs a seccomp filter: `program` is an array of ``struct sock_filter`` (8 bytes each)."""
    buffer = ctypes.create_string_buffer(program, len(program))
    prog = _SockProg(len(program) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    _check(_LIBC.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(prog), 0, 0), "PR_SET_SECCOMP")


class _SockProg(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2


def _last_capability() -> int:
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:  # noqa: PTH123 - between fork and exec
        return int(file.read())
