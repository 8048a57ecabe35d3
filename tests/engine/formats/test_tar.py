"""Tar archives of strangers: read like zips, refused like zips."""

import io
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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


def header(name, size=0, kind=b"0"):
    """One header, also with a size that no program writes."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    if size:
        block[124:136] = (b"\xff" if size < 0 else b"\x80") + size.to_bytes(11, "big", signed=size < 0)
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(*records):
    data = b"".join(records)
    return header("p", len(data), b"x") + data.ljust(-len(data) % 512 + len(data), b"\0") + header("a")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        *(
            (header("a", size, kind), "file_damaged")
            for size in (-1, -512, -(2**40))
            for kind in (b"0", b"L", b"x", b"5")
        ),
        (header("a") + header("b", -1024), "file_damaged"),
        *((header("a", 2**40, kind), "file_damaged") for kind in (b"0", b"L", b"K", b"x", b"g")),
        (header("a", 2 << 20, b"L") + bytes(2 << 20), "archive_too_large"),
        (pax(b"15 size=-10000\n"), "file_damaged"),
        (pax(b"13 size=-512\n"), "file_damaged"),
        (pax(b"13 size=9000\n"), "file_damaged"),
        (pax(b"99999 path=x\n"), "file_damaged"),
        (pax(b"13 path=../b\n"), "archive_unsafe_names"),
        (pax(b"20 path=/etc/passwd\n"), "archive_unsafe_names"),
        (pax(b"22 GNU.sparse.major=1\n"), "archive_unsafe_names"),
        (header("a", kind=b"S"), "archive_unsafe_names"),
        (header("a") + b"x" * 512, "file_damaged"),
        (header("") + header("b"), "archive_unsafe_names"),
    ],
)
def test_headers_that_lie(content, code, tmp_path):
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
    records = pax(b"10 size=5\n")
    (tmp_path / "x").write_bytes(records + b"hello".ljust(512, b"\0") + header("b") + bytes(1024))
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
