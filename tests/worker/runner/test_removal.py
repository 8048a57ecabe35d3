"""What a job left is deleted by its own user, which has no more rights than the job had."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from worker.runner.folder import JobFolder
from worker.runner.removal import remove_tree

_ORDINARY = "from worker.runner import linux; linux.limit_capabilities(frozenset())\n"
_REMOVE = """
import sys
from pathlib import Path
from worker.runner.folder import JobFolder
JobFolder(Path(sys.argv[1]), 0).remove()
"""
_SWEEP = """
import sys
from pathlib import Path
from worker.runner.folder import sweep
print(*sweep(Path(sys.argv[1]).parents[1]))
"""


def as_ordinary_user(code: str, path: Path) -> str:
    """What `code` prints in a process that the modes of its own files bind, as they bind anybody but root."""
    command = [sys.executable, "-c", _ORDINARY + code, str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout.strip()


@pytest.fixture
def hostile(tmp_path: Path) -> JobFolder:
    """A job's folder, with modes by which its maker wants to keep it."""
    folder = JobFolder.create(tmp_path, "hostile", None)
    for mode in (0o000, 0o100, 0o400, 0o500):
        closed = folder.output / f"{mode:o}"
        (closed / "below" / "deeper").mkdir(parents=True)
        (closed / "below" / "deeper" / "file").write_text("kept")
        (closed / "below" / "deeper").chmod(mode)
        (closed / "below").chmod(mode)
        closed.chmod(mode)
    return folder


def test_folders_without_permissions_go(hostile: JobFolder) -> None:
    as_ordinary_user(_REMOVE, hostile.path)
    assert not hostile.path.exists()
    assert not hostile.taken.exists()


def test_sweep_opens_what_a_job_closed(hostile: JobFolder) -> None:
    hostile.path.chmod(0)
    assert as_ordinary_user(_SWEEP, hostile.path) == "", "its lock is held"
    os.close(hostile.lock)
    assert as_ordinary_user(_SWEEP, hostile.path) == hostile.path.name
    assert not hostile.path.exists()


def test_folders_deeper_than_any_path_go(tmp_path: Path) -> None:
    code = "import os, sys\nos.chdir(sys.argv[1])\nfor _ in range(1200): os.mkdir('down'); os.chdir('down')"
    top = tmp_path / "top"
    top.mkdir()
    as_ordinary_user(code, top)
    remove_tree(top)
    assert not top.exists()


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside, top = tmp_path / "outside", tmp_path / "top"
    for folder in (outside, top):
        folder.mkdir()
    (outside / "file").write_text("not the job's")
    outside.chmod(0o500)
    (top / "link").symlink_to(outside)
    (tmp_path / "link").symlink_to(outside)
    remove_tree(top)
    remove_tree(tmp_path / "link")
    assert not top.exists()
    assert (outside / "file").exists()
    assert outside.stat().st_mode & 0o777 == 0o500


def test_what_stays_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "an immutable file")

    top = tmp_path / "top"
    top.mkdir()
    (top / "file").write_text("kept")
    monkeypatch.setattr("worker.runner.removal.os.unlink", refuse)
    remove_tree(top)
    assert "could not be deleted" in caplog.text
    remove_tree(tmp_path / "absent")
