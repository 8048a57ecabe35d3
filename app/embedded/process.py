"""Starting and stopping a child that can never outlive the process that started it."""

import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from app.lifetime import die_with


class EmbeddedError(Exception):
    """The embedded service cannot start or go on; the message says why and what would help."""

    exit_code: ClassVar[int] = 1


@dataclass(frozen=True)
class Account:
    """The operating-system user that a child runs as."""

    uid: int
    gid: int

    def owns(self, path: Path) -> None:
        """Hands `path` to this user."""
        os.chown(path, self.uid, self.gid)

    def can_reach(self, path: Path) -> bool:
        """Whether this user may read and enter `path`, judged by owner, group and mode of it and its parents."""
        resolved = path.resolve()
        return self._allows(resolved, 0o5) and all(self._allows(parent, 0o1) for parent in resolved.parents)

    def _allows(self, path: Path, bits: int) -> bool:
        stat = path.stat()
        shift = 6 if stat.st_uid == self.uid else 3 if stat.st_gid == self.gid else 0
        return (stat.st_mode >> shift) & bits == bits


def servers_account(name: str = "nobody") -> Account | None:
    """Who the servers run as: `name` when we are root (PostgreSQL refuses root), else ourselves (None)."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise EmbeddedError(
            f"there is no user {name!r} to run the database servers as; choose one with --server-user"
        ) from None
    if entry.pw_uid == 0:
        raise EmbeddedError("PostgreSQL refuses to run as root; choose another user with --server-user")
    return Account(entry.pw_uid, entry.pw_gid)


@dataclass(frozen=True)
class Program:
    """How to start one child, and how to end it."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path | None = None
    account: Account | None = None
    stdin: str = ""
    pass_fds: tuple[int, ...] = ()
    stop_signal: signal.Signals = signal.SIGTERM
    stop_grace_s: float = 10.0
    death_signal: signal.Signals = field(default=signal.SIGKILL)

    def spawn(self, log: Path | None) -> "subprocess.Popen[bytes]":
        """Starts the child in a session of its own (so that a Ctrl-C reaches only us), writing to `log`.

        Without `log` it writes where we do. The kernel sends it `death_signal` when the calling thread ends: call
        this from the main thread.
        """
        with nullcontext() if log is None else log.open("ab") as output:
            process = subprocess.Popen(
                self.argv,
                env=dict(self.env),
                cwd=self.cwd,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=None if log is None else subprocess.STDOUT,
                pass_fds=self.pass_fds,
                start_new_session=True,
                preexec_fn=die_with_parent(self.death_signal),
                user=self.account.uid if self.account else None,
                group=self.account.gid if self.account else None,
                extra_groups=[] if self.account else None,
            )
        if process.stdin is None:
            raise EmbeddedError(f"{self.name}: no pipe to its standard input")
        try:
            with process.stdin as pipe:
                pipe.write(self.stdin.encode())
        except BrokenPipeError:
            pass  # it died at once; whoever waits for it will see that and show its log
        return process

    def run(self, log: Path) -> int:
        """Starts the child and waits for its end; its exit status."""
        return self.spawn(log).wait()


def die_with_parent(death_signal: signal.Signals) -> Callable[[], None]:
    """A ``preexec_fn`` that ties the child's life to the calling thread's (``PR_SET_PDEATHSIG``).

    It runs after the change of user, which would clear the tie, and makes nothing but system calls, so that
    it is safe between fork and exec.
    """
    if sys.platform != "linux":
        raise EmbeddedError("the embedded service needs Linux; use the containers elsewhere")
    parent = os.getpid()

    return lambda: die_with(parent, death_signal)


def ask_to_stop(process: "subprocess.Popen[bytes]", program: Program) -> None:
    """Sends the child its own signal."""
    if process.poll() is None:
        process.send_signal(program.stop_signal)


def wait_or_kill(process: "subprocess.Popen[bytes]", program: Program) -> int:
    """Waits for the child's end, which comes by force after its grace; its exit status."""
    try:
        return process.wait(program.stop_grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def stop(process: "subprocess.Popen[bytes]", program: Program) -> int:
    """Ends the child; its exit status."""
    ask_to_stop(process, program)
    return wait_or_kill(process, program)


def log_tail(log: Path, lines: int = 5) -> str:
    """The last lines of a child's log, for an error message."""
    try:
        text = log.read_text(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
