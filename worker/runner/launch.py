"""The keeper: a tiny process between the supervisor and the job's process.

``python -m worker.runner.launch FOLDER REPORT LOCK PARENT -- COMMAND...`` starts COMMAND inside the walls
described by FOLDER/sandbox.json, with the pipe REPORT and the lock file LOCK (descriptors) at their agreed
numbers, and a lifeline (`worker.runner.lifeline`) as its standard input. It adopts every orphan below it, and when
COMMAND ends, the supervisor dies or has been silent for a lease, or SIGTERM comes, it kills all that is left: measuring
processes are grandchildren, and a hostile job may try to leave a daemon behind. Its exit code is COMMAND's,
128 + signal, or `lifeline.SILENT`.

``python -m worker.runner.launch --probe FOLDER`` prints which walls stand, as JSON.
"""

import fcntl
import json
import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

from app.lifetime import die_with
from worker.runner import lifeline, linux, sandbox

SANDBOX = "sandbox.json"
_REPORT_FD, _LOCK_FD = 3, 4  # as in worker.runner.messages, which would import pydantic
_ROUNDS, _PAUSE_S = 1000, 0.005
#: Sleeps are shorter than this, in seconds: their clock stands while the machine sleeps, that of the lifeline goes on.
_LOOK_S = 1.0


def main(arguments: list[str]) -> int:
    """Runs the keeper or the probe; the exit code."""
    if arguments[0] == "--probe":
        sys.stdout.write(json.dumps(asdict(sandbox.probe(Path(arguments[1])))))
        return 0
    folder, report, lock, parent = Path(arguments[0]), int(arguments[1]), int(arguments[2]), int(arguments[3])
    command = arguments[arguments.index("--") + 1 :]
    signal.signal(signal.SIGTERM, lambda *_: _end())
    linux.become_subreaper()
    die_with(parent, signal.SIGTERM)
    confinement = sandbox.Confinement.from_json((folder / SANDBOX).read_text())
    lease = lifeline.KeeperEnd(sys.stdin.fileno())
    if lease.left() <= 0:
        return lifeline.SILENT
    keeper = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # waited for; one that came earlier would be lost
    pid = os.fork()
    if pid == 0:
        try:
            _become(confinement, keeper, report, lock, command)
        except OSError as error:
            sys.stderr.write(f"cannot start the job's process: {error}\n")
            sys.stderr.flush()
        finally:
            os._exit(127)
    os.close(report)
    code = _wait_for(pid, lease)
    kill_descendants()
    return code


def _become(confinement: sandbox.Confinement, keeper: int, report: int, lock: int, command: list[str]) -> None:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())  # the lifeline is not the job's
    # Out of the way first: the agreed numbers may be taken, by the other one or by themselves.
    spare = [fcntl.fcntl(source, fcntl.F_DUPFD, 2 * _LOCK_FD) for source in (report, lock)]
    os.dup2(spare[0], _REPORT_FD)
    os.dup2(spare[1], _LOCK_FD)
    os.closerange(_LOCK_FD + 1, 4096)
    _prefer_as_victim()
    sandbox.enter(confinement)
    die_with(keeper, signal.SIGKILL)  # after the change of user, which clears it
    os.execv(command[0], command)  # noqa: S606 - the command is the supervisor's


def _prefer_as_victim() -> None:
    """When memory runs out, the kernel shall end the job, not the worker."""
    try:
        Path("/proc/self/oom_score_adj").write_text("900")
    except OSError:  # not allowed here: the supervisor's own watch still stands
        return


def _wait_for(pid: int, lease: lifeline.KeeperEnd) -> int:
    """Reaps everything until `pid` itself ends, or the lease; the exit code."""
    while (left := lease.left()) > 0:
        signal.sigtimedwait({signal.SIGCHLD}, min(left, _LOOK_S))
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == pid:
                code = os.waitstatus_to_exitcode(ended[1])
                return code if code >= 0 else 128 - code
    return lifeline.SILENT


def _end() -> None:
    kill_descendants()
    os._exit(128 + signal.SIGTERM)


def kill_descendants() -> None:
    """Kills every process below this one, until none is left (each round also finds what was forked meanwhile)."""
    for _ in range(_ROUNDS):
        for pid in _descendants(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:  # ended meanwhile
                continue
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:  # as the adopter of all orphans below: no child, nobody left
            return
        time.sleep(_PAUSE_S)


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - hot, and names are all that is wanted
        if not entry.isdigit():
            continue
        try:
            stat = Path("/proc", entry, "stat").read_text(errors="replace")
        except OSError:  # ended meanwhile
            continue
        parent = int(stat.rpartition(")")[2].split()[1])
        children.setdefault(parent, []).append(int(entry))
    found, queue = [], [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
