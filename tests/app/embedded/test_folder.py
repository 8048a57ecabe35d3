"""The data folder: made once, locked, private, and never mistaken for another."""

import json
import os
import stat
from pathlib import Path

import pytest

from app.embedded import folder as folder_module
from app.embedded.folder import FORMAT, FolderInUseError, open_data_folder, write_private
from app.embedded.process import EmbeddedError


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "_LOCK_PATIENCE_S", 0.1)


def test_secrets_are_made_once_and_private(tmp_path: Path) -> None:
    data = tmp_path / "new" / "data"
    first = open_data_folder(data)
    first.close()
    second = open_data_folder(data)
    second.close()
    assert first.secrets == second.secrets
    assert len(set(json.loads((data / "secrets.json").read_text()).values())) == 3
    assert stat.S_IMODE((data / "secrets.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(data.stat().st_mode) & 0o066 == 0
    for closed in ("store", "logs"):
        assert stat.S_IMODE((data / closed).stat().st_mode) == 0o700


def test_a_second_owner_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    first = open_data_folder(tmp_path)
    with pytest.raises(FolderInUseError, match=rf"process {os.getpid()}\) is running on"):
        open_data_folder(tmp_path)
    first.close()
    open_data_folder(tmp_path).close()


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(EmbeddedError, match="not made by Modelpress"):
        open_data_folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedError, match="is not a folder"):
        open_data_folder(tmp_path / "file")


def test_a_folder_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    open_data_folder(tmp_path).close()
    (tmp_path / "modelpress.json").write_text(json.dumps({"format": FORMAT + 1, "version": "99.0"}))
    with pytest.raises(EmbeddedError, match=r"written by Modelpress 99\.0, which is newer"):
        open_data_folder(tmp_path)


@pytest.mark.parametrize("name", ["modelpress.json", "secrets.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": "x"}', '{"surprise": 1}'])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: str) -> None:
    open_data_folder(tmp_path).close()
    (tmp_path / name).write_text(content)
    with pytest.raises(EmbeddedError, match=rf"{name} is damaged"):
        open_data_folder(tmp_path)


def test_data_without_its_secrets_is_refused(tmp_path: Path) -> None:
    open_data_folder(tmp_path).close()
    (tmp_path / "postgres").mkdir()
    (tmp_path / "secrets.json").unlink()
    with pytest.raises(EmbeddedError, match=r"secrets\.json is missing"):
        open_data_folder(tmp_path)


def test_the_lock_is_free_after_a_refused_start(tmp_path: Path) -> None:
    open_data_folder(tmp_path).close()
    (tmp_path / "secrets.json").write_text("broken")
    for _ in range(2):
        with pytest.raises(EmbeddedError, match="is damaged"):
            open_data_folder(tmp_path)


def test_the_runtime_folder_of_a_killed_predecessor_is_removed(tmp_path: Path) -> None:
    folder = open_data_folder(tmp_path)
    left = folder.make_runtime(None)
    fresh = folder.make_runtime(None)
    assert fresh.is_dir()
    assert not left.exists()
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o700
    folder.remove_runtime()
    assert not fresh.exists()
    folder.close()


def test_a_private_file_replaces_an_open_one(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("before")
    file.chmod(0o644)
    write_private(file, "after")
    assert file.read_text() == "after"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
