"""A process ends with the one that started it."""

import subprocess
import sys

import psutil

_TIED = """
import os, signal, time
from app.lifetime import die_with
parent = os.getpid()
if os.fork() == 0:
    die_with(parent, signal.SIGKILL)
    print(os.getpid(), flush=True)
time.sleep(60)
"""
_LATE = "import os, signal; from app.lifetime import die_with; die_with(os.getpid(), signal.SIGKILL); print('went on')"


def test_a_child_ends_with_its_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", _TIED], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_parent_that_is_gone_already_ends_it_at_once() -> None:
    late = subprocess.run([sys.executable, "-c", _LATE], capture_output=True, text=True)
    assert (late.returncode, late.stdout, late.stderr) == (1, "", "")
