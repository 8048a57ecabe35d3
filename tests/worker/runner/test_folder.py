"""Files come out of a job's folder only when they are what they seem."""

import os
import stat
import time
import zipfile
from pathlib import Path

import pytest

from worker.runner.folder import JobFolder, UntrustedFileError, sweep, unpack_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    return JobFolder.create(tmp_path, "job_x-1", None)


def test_take_copies_out_of_reach(folder: JobFolder) -> None:
    (folder.output / "deep").mkdir()
    (folder.output / "deep" / "model.onnx").write_bytes(b"made")
    taken = folder.take("deep/model.onnx")
    (folder.output / "deep" / "model.onnx").write_bytes(b"changed later")
    assert taken.read_bytes() == b"made"
    assert not taken.is_relative_to(folder.path)
    folder.remove()
    assert not taken.exists()


def test_what_is_not_a_plain_file_stays(folder: JobFolder, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    output = folder.output
    (output / "link").symlink_to(secret)
    (output / "folder-link").symlink_to(tmp_path)
    os.link(secret, output / "hard")
    os.mkfifo(output / "fifo")
    (output / "directory").mkdir()
    names = ["link", "folder-link/secret", "hard", "fifo", "directory", "../lock", "/etc/passwd", "", "absent", "a\0b"]
    for name in names:
        with pytest.raises(UntrustedFileError):
            folder.take(name)


def test_sweep_removes_only_what_nobody_holds(tmp_path: Path) -> None:
    alive, dead = JobFolder.create(tmp_path, "alive", None), JobFolder.create(tmp_path, "dead", None)
    os.close(dead.lock)
    (dead.output / "locked").mkdir(mode=0)
    assert sweep(tmp_path) == [dead.path.name]
    assert alive.path.exists()
    assert not dead.path.exists()
    assert not dead.taken.exists()
    assert sweep(tmp_path / "nothing here") == []


def test_sweep_removes_what_has_no_lock_once_it_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing, unusable = JobFolder.create(tmp_path, "missing", None), JobFolder.create(tmp_path, "unusable", None)
    for folder in (missing, unusable):
        os.close(folder.lock)
        (folder.path / "lock").unlink()
        os.utime(folder.path, (2**33, 2**33))  # as a job could, to seem young for ever
    (unusable.path / "lock").symlink_to(tmp_path)
    assert sweep(tmp_path) == [], "it may just be being made"
    now = time.time()
    monkeypatch.setattr("worker.runner.folder.time.time", lambda: now + 700)
    assert sweep(tmp_path) == [missing.path.name, unusable.path.name]
    assert not list((tmp_path / "attempts").iterdir())


def archive(path: Path, entries: dict[str, bytes], *, link: bool = False) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16 if link else 0
            target.writestr(info, content, zipfile.ZIP_DEFLATED)
    return path


def test_a_checkpoint_is_unpacked(tmp_path: Path) -> None:
    made = archive(tmp_path / "c.zip", {"state.json": b"{}", "tensors/a.safetensors": b"abc"})
    unpack_checkpoint(made, tmp_path / "out", 1000)
    assert (tmp_path / "out" / "tensors" / "a.safetensors").read_bytes() == b"abc"


@pytest.mark.parametrize(
    ("entries", "link"),
    [({"../out": b""}, False), ({"/abs": b""}, False), ({"a": b"/etc"}, True), ({"a": bytes(2000)}, False)],
    ids=["parent", "absolute", "link", "too large"],
)
def test_a_hostile_checkpoint_is_refused(tmp_path: Path, entries: dict[str, bytes], link: bool) -> None:
    made = archive(tmp_path / "c.zip", entries, link=link)
    with pytest.raises(UntrustedFileError):
        unpack_checkpoint(made, tmp_path / "out", 1000)


def test_a_checkpoint_that_is_no_zip(tmp_path: Path) -> None:
    (tmp_path / "c.zip").write_bytes(b"PK\x03\x04 but no more")
    with pytest.raises(UntrustedFileError):
        unpack_checkpoint(tmp_path / "c.zip", tmp_path / "out", 1000)
