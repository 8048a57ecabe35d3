"""`modelpress.check`: what the service will say to a file, before it is uploaded."""

import errno
import gzip
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

from modelpress.inspection import detect, folder, onnx, pt2, tar
from modelpress.inspection.archive import Archive
from modelpress.inspection.names import is_left_by_a_mac, only_model
from modelpress.inspection.report import CheckReport, Findings, Refused
from modelpress.inspection.stream import Damaged, Stream

_MAX_FILES: Final = 10_000
_BROKEN: Final = (
    Damaged,
    zlib.error,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    struct.error,
    EOFError,
    ValueError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
)


def check(path: str | Path, *, format: str | None = None) -> CheckReport:
    """Tell what the service will say to a model file, without the service and without reading weights.

    Args:
        path: a file, or a folder of transformers.
        format: what the upload will announce: ``pt2``, ``onnx`` or ``transformers``; None: whatever it is.

    Raises:
        OSError: the file cannot be read. Whatever is in it, the answer is a report.
    """
    path = Path(path)
    findings = Findings()
    size = path.stat().st_size
    if not path.is_dir() and not path.is_file():
        raise OSError(errno.EINVAL, "neither a file nor a folder", str(path))
    try:
        if path.is_dir():
            size = sum(file.stat().st_size for _, file in _files(path))
            _inspect_folder(path, findings)
        else:
            with path.open("rb") as file:
                _inspect(path, file, size, findings)
    except Refused as refused:
        findings.problems.append(refused.problem)
    if format is not None and findings.format is not None and format != findings.format:
        findings.problems.clear()
        findings.refuse(
            "format_mismatch",
            f"The file was announced as {format!r} but is {findings.format!r}. Leave the format out.",
        )
    content: dict[str, Any] = vars(findings)
    content |= {"problems": tuple(findings.problems), "notes": tuple(dict.fromkeys(findings.notes))}
    return CheckReport(file=path.name or str(path), size_bytes=size, **content)


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    """Files of a folder by their names in it; what is hidden is left out."""
    for count, file in enumerate(sorted(path.rglob("*"))):
        if count >= _MAX_FILES:
            raise Refused("archive_too_large", f"The folder has more than {_MAX_FILES} files.")
        name = file.relative_to(path).as_posix()
        if file.is_file() and not name.startswith(".") and not is_left_by_a_mac(name):
            yield name, file


def _inspect(path: Path, file: IO[bytes], size: int, findings: Findings) -> None:
    kind = detect.detect(file, size)
    if kind == "onnx":
        onnx.inspect(Stream(file, size), findings)
        return
    with _damage():
        if kind == "zip":
            _inspect_zip(Archive(path, file), findings)
        else:
            _inspect_tar(partial(tar.opened, file, size, compressed=kind == "tgz"), findings)


def _inspect_zip(archive: Archive, findings: Findings) -> None:
    kind = detect.of_archive(archive.entries)
    if kind == "pt2":
        pt2.inspect(archive, findings)
    elif kind == "onnx":
        model = only_model(archive.entries)
        onnx.inspect(archive.stream(model), findings, _beside(model, archive.entries))
    else:
        held = folder.Folder()
        for name, entry in archive.entries.items():
            held.take(name, archive.stream(name), entry.size)
        folder.inspect(held, findings)


def _beside(model: str, names: Collection[str]) -> set[str]:
    """The other files as the model names them."""
    parent = PurePosixPath(model).parent
    inside = (PurePosixPath(name) for name in names if name != model)
    return {str(name.relative_to(parent)) for name in inside if name.is_relative_to(parent)}


def _inspect_tar(opened: Callable[[], Stream], findings: Findings) -> None:
    """Read it twice: only all of the names tell which files matter."""
    names = tar.names(opened)
    kind = detect.of_archive(names.values())
    if kind == "pt2":
        raise Refused(
            "file_damaged", "The archive is a tar of what torch.export.save() writes. Upload the .pt2 as it was saved."
        )
    model = only_model(names.values()) if kind == "onnx" else None
    held, stream = folder.Folder(), opened()
    for member, size in tar.members(stream):
        name = names.get(member)
        if name is None:
            continue
        if kind == "transformers":
            held.take(name, stream, size)
        elif name == model:
            onnx.inspect(stream.part(size), findings, _beside(name, names.values()))
            return
    folder.inspect(held, findings)


def _inspect_folder(path: Path, findings: Findings) -> None:
    held = folder.Folder()
    with _damage():
        for name, file in _files(path):
            with file.open("rb") as opened:
                size = file.stat().st_size
                held.take(name, Stream(opened, size), size)
    if "config.json" not in held.names or detect.of_archive(held.names) != "transformers":
        raise detect.unknown("a folder that is none of transformers")
    folder.inspect(held, findings)
    findings.notes.append("Upload the folder as one file, for example: zip -0 -r model.zip FOLDER")


@contextmanager
def _damage() -> Iterator[None]:
    """What an archive's bytes can do wrong beyond its directory, as a refusal."""
    try:
        yield
    except _BROKEN as error:
        raise Refused(
            "file_damaged",
            f"The archive is damaged: {error}. It may have been cut off on its way; upload it again.",
        ) from error
