"""A job's processes end by themselves once their supervisor has been silent for a lease.

A supervisor can stand still (SIGSTOP, a machine that swaps, a network cut in two) while the processes of its job go on.
The lease expires, another worker takes the job up, and it would run twice. So there is a pipe from the supervisor to
the keeper (`worker.runner.launch`): whenever the lease has been renewed, it carries until when the processes may live.
The keeper computes nothing and waits for nobody, whatever the job does; it reads the pipe, and ends all below it
when that time has come.

Both ends are processes of one host and look at the same clock, which also counts while the machine sleeps.
Standard library only: the keeper is small.
"""

import os
import signal
import struct
import time

#: Share of a lease after which the job's processes are ended; in the rest the kernel takes them apart.
SHARE = 0.9
#: The keeper's exit code where it ended them.
SILENT = 128 + signal.SIGALRM
_TIME = struct.Struct("d")
_MUCH = 64 * 1024


def now() -> float:
    """Seconds since the machine started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def until(asked: float, lease_s: float) -> float:
    """When the processes of a job have to end.

    Args:
        asked: `now()` before the lease was asked for: the database lets it begin later, never earlier.
        lease_s: how long the lease is.
    """
    return asked + SHARE * lease_s


class SupervisorEnd:
    """Writes. `reader` is for the keeper."""

    def __init__(self, end: float) -> None:
        self.reader, writer = os.pipe()
        os.set_blocking(writer, False)
        self._pipe = os.fdopen(writer, "wb", buffering=0)
        self.extend(end)

    def extend(self, end: float) -> None:
        """The processes may live until then. Waits for nobody; a keeper that is gone needs no more."""
        if self._pipe.closed:
            return
        try:
            self._pipe.write(_TIME.pack(end))  # whole or not at all; a pipe that nobody empties stays as it is
        except BrokenPipeError:
            self._pipe.close()

    def close(self) -> None:
        """No further extension."""
        self._pipe.close()


class KeeperEnd:
    """Reads from the descriptor `pipe`. Where nothing was ever written, the time is over."""

    def __init__(self, pipe: int) -> None:
        os.set_blocking(pipe, False)
        self._pipe = pipe
        self._end = 0.0

    def left(self) -> float:
        """Seconds until the processes have to end, by the last that was written."""
        try:
            while written := os.read(self._pipe, _MUCH):
                (self._end,) = _TIME.unpack_from(written, len(written) - _TIME.size)
        except BlockingIOError:
            pass  # read to its end
        return self._end - now()
