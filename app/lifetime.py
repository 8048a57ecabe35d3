"""Ties a process to the one that started it. Linux alone; takes no locks, so that it may run between fork and exec."""

import ctypes
import os
import signal

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


def die_with(parent: int, death_signal: signal.Signals) -> None:
    """Asks the kernel to send `death_signal` when the parent's thread that started this process ends.

    Lost by a change of user. Ends the process where `parent` (its process id) is gone already.

    Raises:
        OSError: the kernel refuses.
    """
    if _LIBC.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(int(death_signal)), *[ctypes.c_ulong(0)] * 3) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"PR_SET_PDEATHSIG: {os.strerror(number)}")
    if os.getppid() != parent:
        os._exit(1)
