"""Tar archives of strangers: read like zips, refused like zips."""

import io
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.kinds import LYING_TARS, tar_header, tar_pax
from worker.engine.errors import InvalidModel
from worker.engine.formats.tar import Tar, is_tar

FILES = {"model/config.json": b"{}", "model/deep/er/weights": bytes(range(256)) * 8}


def pack(path, files=FILES, mode="w", **changes):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in changes.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_reads_what_is_there(mode, tmp_path):
    path = pack(tmp_path / "x", mode=mode)
    assert is_tar(path)
    archive = Tar(path)
    assert list(archive.entries) == ["config.json", "deep/er/weights"]
    assert bytes(archive.view("deep/er/weights")) == FILES["model/deep/er/weights"]
    with pytest.raises(InvalidModel, match="file_incomplete"):
        archive.view("other")


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "a/../../b", "a\\b", "a//b"])
def test_names_that_leave_the_folder(name, tmp_path):
    with pytest.raises(InvalidModel, match="archive_unsafe_names"):
        Tar(pack(tmp_path / "x", {name: b"1", "b": b"2"}))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices(kind, tmp_path):
    with pytest.raises(InvalidModel, match="archive_unsafe_names"):
        Tar(pack(tmp_path / "x", {"a": b""}, type=kind, linkname="/etc/passwd"))


def test_a_name_twice(tmp_path):
    with tarfile.open(tmp_path / "x", "w") as archive:
        for data in (b"1", b"2"):
            info = tarfile.TarInfo("a")
            info.size = 1
            archive.addfile(info, io.BytesIO(data))
    with pytest.raises(InvalidModel, match="archive_unsafe_names"):
        Tar(tmp_path / "x")


def test_a_bomb(tmp_path):
    with pytest.raises(InvalidModel, match="archive_too_large"):
        Tar(pack(tmp_path / "x", {"zeros": bytes(32 << 20)}, mode="w:gz"))


@pytest.mark.parametrize("name", LYING_TARS)
def test_headers_that_lie(name, tmp_path):
    content, code = LYING_TARS[name]
    (tmp_path / "x").write_bytes(content + bytes(1024))
    with pytest.raises(InvalidModel) as caught:
        Tar(tmp_path / "x")
    assert caught.value.code == code


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_reads_as_python_reads_it(form, tmp_path):
    long = "f" * 90 if form == tarfile.USTAR_FORMAT else "ü" * 150
    files = {f"top/{long}/{index}": bytes([index]) * size for index, size in enumerate((0, 1, 511, 512, 513, 70_000))}
    with tarfile.open(tmp_path / "x", "w", format=form, pax_headers={"comment": "made here"}) as archive:
        folder = tarfile.TarInfo(f"top/{long}")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1.5
            archive.addfile(info, io.BytesIO(data))
    archive = Tar(tmp_path / "x")
    assert [bytes(archive.view(str(index))) for index in range(len(files))] == list(files.values())


def test_the_size_of_a_pax_header_is_the_one_that_counts(tmp_path):
    records = tar_pax(b"10 size=5\n")
    (tmp_path / "x").write_bytes(records + b"hello".ljust(512, b"\0") + tar_header("b") + bytes(1024))
    archive = Tar(tmp_path / "x")
    assert bytes(archive.view("a")) == b"hello" and list(archive.entries) == ["a", "b"]


def test_what_a_mac_adds_is_left_out(tmp_path):
    files = {**FILES, "model/._config.json": b"1", "__MACOSX/model/._config.json": b"1", "model/.DS_Store": b"1"}
    assert list(Tar(pack(tmp_path / "x", files)).entries) == ["config.json", "deep/er/weights"]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_an_error_with_a_code(mode, data, tmp_path):
    content = bytearray(pack(tmp_path / "x", mode=mode).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "y"
    path.write_bytes(content[: data.draw(st.integers(600, 20_000))])
    try:
        archive = Tar(path)
        for name in archive.entries:
            archive.view(name)
    except InvalidModel:
        pass
