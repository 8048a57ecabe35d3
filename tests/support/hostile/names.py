"""Names and kinds of entries that would lead out of a folder, were they unpacked."""

import io
import stat
import tarfile

from tests.support.hostile import good
from tests.support.hostile.case import ACCEPTED, Group, Make
from tests.support.hostile.rawzip import Entry, entries_of, npz_entries, pt2_entries, raw_zip
from tests.support.kinds import LYING_TARS

NAMES = Group("names")
LINKS = Group("links")
REFUSED, COLUMN = "archive_unsafe_names", "dataset_column_invalid"

#: Names that leave the folder, or would on some system.
LEAVING = {
    "up": b"../evil",
    "up-deep": b"model/a/../../../evil",
    "up-at-the-end": b"model/..",
    "absolute": b"/etc/evil",
    "double-slash": b"//server/share",
    "inner-double-slash": b"model//evil",
    "drive": b"C:/evil",
    "drive-alone": b"C:evil",
    "stream": b"a:b",
    "backslash": b"..\\evil",
    "unc": b"\\\\server\\share",
    "nul": b"model/evil\0.json",
    "nul-up": b"ok\0/../../evil",
    "empty": b"",
}
#: Names that only look as if: to the file system they are names like any other.
LOOKING = {
    "fullwidth-slash": "..／evil".encode(),
    "fraction-slash": "..⁄evil".encode(),
    "two-dot-leader": "‥/evil".encode(),
    "fullwidth-dots": "．．/evil".encode(),
    "percent": b"%2e%2e/evil",
    "overlong": b"..\xc0\xaf evil",
    "right-to-left": "evil‮nosj.exe".encode(),
    "newline": b"a\nb",
    "device": b"model/CON",
    "trailing-dot": b"model/evil.",
    "three-dots": b".../evil",
    "tilde": b"~/evil",
    "variable": b"$HOME/evil",
    "dash": b"-rf",
    "long": b"a" * 5000,
    "deep": b"a/" * 2000 + b"a",
    "zero-width": "models​/x".encode(),
    "combining": "é/e\u0301".encode(),
}


def in_pt2(name: bytes) -> Make:
    """An entry more in a ``.pt2``."""
    flags = {"flags": 0x800} if any(byte > 127 for byte in name) else {}
    return lambda canary: raw_zip([*pt2_entries(), Entry(name, b"x", local=flags, central=flags)])


def in_bundle(name: bytes) -> Make:
    """An entry more beside an ``.onnx``."""
    bundle = entries_of(good.zip_of(good.onnx_bundle()))
    return lambda canary: raw_zip([*bundle, Entry(name, b"x")])


def in_npz(name: bytes) -> Make:
    """A column more."""
    column = npz_entries()[0].data
    return lambda canary: raw_zip([*npz_entries(), Entry(name + b".npy", column, deflated=True)])


def in_tar(name: bytes, mode: str = "w") -> Make:
    """A file more in a tar."""
    content = good.onnx_bundle() | {name.decode("utf-8", "surrogateescape"): b"x"}
    return lambda canary: good.tar_of(content, mode)


for _name, _bytes in LEAVING.items():
    NAMES.model(f"{_name}-in-pt2", in_pt2(_bytes), REFUSED, *(["file_damaged"] if b"\0" in _bytes else ()))
    NAMES.model(f"{_name}-in-onnx-zip", in_bundle(_bytes), REFUSED, *(["file_damaged"] if b"\0" in _bytes else ()))
    NAMES.tensors(f"{_name}-in-npz", in_npz(_bytes), ACCEPTED, COLUMN, "unknown_format")
    NAMES.model(f"{_name}-in-tar", in_tar(_bytes), ACCEPTED if b"\0" in _bytes else REFUSED)  # a name ends at NUL there
for _name, _bytes in LOOKING.items():
    NAMES.model(f"{_name}-in-pt2", in_pt2(_bytes), REFUSED if _name == "long" else ACCEPTED, "file_damaged")
    NAMES.tensors(f"{_name}-in-npz", in_npz(_bytes), ACCEPTED, COLUMN)
    NAMES.model(f"{_name}-in-tar", in_tar(_bytes), ACCEPTED, REFUSED)


def of_kind(mode: int, data: bytes = b"/etc/passwd") -> Entry:
    """An entry that says it is a link or a device."""
    return Entry(b"m/link", data, central={"attributes": (mode | 0o777) << 16})


def replaced(mode: int) -> Make:
    """The weights of an ``.onnx`` are a link to another file."""
    bundle = [Entry(b"m.onnx", good.onnx_bundle()["m.onnx"])]
    link = Entry(b"w.data", b"/etc/passwd", central={"attributes": (mode | 0o777) << 16})
    return lambda canary: raw_zip([*bundle, link])


def tar_with(kind: bytes, link: str = "/etc/passwd", name: str = "w.data", **fields: int) -> Make:
    """A tar with an ``.onnx`` whose weights are something else."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        model = tarfile.TarInfo("m.onnx")
        data = good.onnx_bundle()["m.onnx"]
        model.size = len(data)
        archive.addfile(model, io.BytesIO(data))
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        for key, value in fields.items():
            setattr(info, key, value)
        archive.addfile(info)
    return lambda canary: buffer.getvalue()


_MODES = {
    "symlink": stat.S_IFLNK,
    "character-device": stat.S_IFCHR,
    "block-device": stat.S_IFBLK,
    "fifo": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
    "unknown": 0o170000,
}
for _name, _mode in _MODES.items():
    LINKS.model(f"{_name}-in-pt2", lambda c, m=_mode: raw_zip([*pt2_entries(), of_kind(m)]), REFUSED)
    LINKS.model(f"{_name}-as-onnx-data", replaced(_mode), REFUSED)
    LINKS.tensors(
        f"{_name}-in-npz", lambda c, m=_mode: raw_zip([*npz_entries(), of_kind(m)]), "unknown_format", REFUSED
    )
_TYPES = {
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
    "character-device": tarfile.CHRTYPE,
    "block-device": tarfile.BLKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "continuous": tarfile.CONTTYPE,
    "sparse": b"S",
    "multi-volume": b"M",
    "volume-label": b"V",
    "old-directory": b"D",
    "unknown": b"Z",
}
for _name, _type in _TYPES.items():
    _said = ("file_incomplete", "weights_invalid") if _type == tarfile.CONTTYPE else (REFUSED,)
    LINKS.model(f"{_name}-in-tar", tar_with(_type), *_said)
LINKS.model("symlink-up-in-tar", tar_with(tarfile.SYMTYPE, "../../../etc/passwd"), REFUSED)
LINKS.model("hardlink-to-the-model-in-tar", tar_with(tarfile.LNKTYPE, "m.onnx"), REFUSED)
LINKS.model("symlink-as-folder-in-tar", tar_with(tarfile.SYMTYPE, "/etc", "folder"), REFUSED)
for _name, (_data, _code) in LYING_TARS.items():
    LINKS.model(f"tar-{_name}", lambda c, data=_data: data + bytes(1024), _code)
