"""The system calls that a job may not make, as a BPF program of our own (no system library needed).

A list of what is refused, not of what is allowed: the runtimes (PyTorch, ONNX Runtime, OpenVINO, CUDA) use hundreds of
calls that change with every version, and the other walls (Landlock, user, namespaces) do not rely on this list.
Refused calls answer EPERM; ``clone3`` answers ENOSYS so that the C library falls back to ``clone``, whose flags can
be inspected. See seccomp(2) and linux/filter.h.
"""

import errno
import platform
import struct
from dataclasses import dataclass

#: Call -> its number on (x86_64, aarch64). No sockets at all: neither the network nor the unix sockets of the database
#: and the queue can be reached. A pair of connected ones may still be made, but not one of datagrams, which could be
#: sent to any other address (the system's log, say).
REFUSED: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "unshare": (272, 97),
    "setns": (308, 268),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "quotactl": (179, 60),
    "acct": (163, 89),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "iopl": (172, None),
    "ioperm": (173, None),
}


@dataclass(frozen=True)
class _Machine:
    column: int
    audit_arch: int
    clone: int
    socketpair: int
    clone3: int = 435


_MACHINES = {
    "x86_64": _Machine(0, 0xC000003E, 56, 53),
    "aarch64": _Machine(1, 0xC00000B7, 220, 199),
}
_X32_BIT = 0x40000000
_NAMESPACES = 0x7E020080  # CLONE_NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET

_LOAD, _JUMP_EQ, _JUMP_GE, _JUMP_SET, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NUMBER, _ARCH, _ARGUMENT_0, _ARGUMENT_1 = 0, 4, 16, 24  # offsets in struct seccomp_data
_KIND, _STREAM = 0xF, 1  # of a socket; flags stand above
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_REFUSE, _ABSENT = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS


def supported() -> bool:
    """Whether the call numbers of this machine are known."""
    return platform.machine() in _MACHINES


def program() -> bytes:
    """The filter for this machine, as an array of ``struct sock_filter``."""
    machine = _MACHINES[platform.machine()]
    refused = [number for numbers in REFUSED.values() if (number := numbers[machine.column]) is not None]
    steps = [
        (_LOAD, 0, 0, _ARCH),
        (_JUMP_EQ, 1, 0, machine.audit_arch),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_GE, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, _REFUSE),
        (_JUMP_EQ, 0, 1, machine.clone3),
        (_RETURN, 0, 0, _ABSENT),
    ]
    for number in refused:
        steps += [(_JUMP_EQ, 0, 1, number), (_RETURN, 0, 0, _REFUSE)]
    steps += [
        (_JUMP_EQ, 0, 5, machine.socketpair),
        (_LOAD, 0, 0, _ARGUMENT_1),
        (_AND, 0, 0, _KIND),
        (_JUMP_EQ, 1, 0, _STREAM),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
        (_JUMP_EQ, 0, 3, machine.clone),
        (_LOAD, 0, 0, _ARGUMENT_0),
        (_JUMP_SET, 0, 1, _NAMESPACES),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
