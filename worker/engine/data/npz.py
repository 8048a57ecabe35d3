"""``.npz``: a zip of ``.npy`` arrays, read without pickle and without loading it into memory.

An array that the archive stores uncompressed (`np.savez`) is memory-mapped where it lies; a compressed one is
unpacked to a scratch file first, never past the size that its entry declares.
"""

import ast
import errno
import math
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from worker.engine.data import codes
from worker.engine.data.samples import Array
from worker.engine.data.table import CHUNK_BYTES, MAX_COLUMNS, refuse_bomb, refuse_dtype, refuse_name
from worker.engine.errors import InvalidDataset, UnsafeFile
from worker.engine.zip_names import encoded_name

#: Most dimensions of a column: numpy ends at twice as many.
MAX_RANK = 32
#: Size of a zip entry's local header before its name and extra field (APPNOTE 4.3.7).
_LOCAL_HEADER = 30
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_MAX_NPY_HEADER = 10_000
_PICKLES = ("data.pkl", ".pkl", ".pickle", ".pt", ".pth")
#: Version of the .npy format -> how the length of its header is stored.
_LENGTHS = {b"\x01\x00": "<H", b"\x02\x00": "<I", b"\x03\x00": "<I"}
_DESCR = re.compile(r"[<>|=][bifucmMSUV?][0-9]{1,3}(\[[a-zA-Z]{1,2}\])?")
_UNPICKLED = (
    "Convert the column to a plain numeric array (for example np.stack(rows).astype(np.float32)) and save it with "
    "np.savez(path, name=array)."
)


def read(path: Path, folder: Path) -> dict[str, Array]:
    """The arrays of an ``.npz``, memory-mapped; `folder` takes those that have to be unpacked.

    Raises:
        UnsafeFile: pickled objects inside.
        InvalidDataset: damaged, incomplete, not an ``.npz``, or a bomb.
    """
    try:
        with _opened(path) as archive:
            entries = _checked(path, archive)
            return {name: _array(path, archive, entry, folder) for name, entry in entries.items()}
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error) as error:
        tail = _tail(path)
        incomplete = b"PK\x05\x06" not in tail or isinstance(error, EOFError)
        code = codes.FILE_INCOMPLETE if incomplete else codes.FILE_DAMAGED
        word = "incomplete" if incomplete else "damaged"
        raise InvalidDataset(
            code, f"The .npz archive is {word} ({error}); save it again with np.savez and upload all of it."
        ) from error
    except NotImplementedError as error:
        raise InvalidDataset(
            codes.FILE_DAMAGED, f"The .npz archive uses a compression that is not read ({error}); use np.savez."
        ) from error


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, ValueError) as error:
        # A directory that points in front of the file makes zipfile seek there.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise zipfile.BadZipFile(f"its directory is broken: {error}") from error


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 66_000))
        return file.read()


def _checked(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The entries by column name, once none of them is dangerous by its directory record."""
    entries = archive.infolist()
    size = path.stat().st_size
    if any(not 0 <= entry.header_offset < size for entry in entries):
        raise zipfile.BadZipFile("its directory points outside of the file")
    if any(entry.filename.endswith(_PICKLES) for entry in entries):
        raise UnsafeFile(f"The archive holds pickled Python objects, which can run code when loaded. {_UNPICKLED}")
    if any(not entry.filename.endswith(".npy") for entry in entries) or len(entries) > MAX_COLUMNS:
        raise InvalidDataset(
            codes.UNKNOWN_FORMAT,
            f"The archive is not an .npz of at most {MAX_COLUMNS} arrays; save one with np.savez(path, name=array).",
        )
    other = next((entry.compress_type for entry in entries if entry.compress_type not in _METHODS), None)
    if other is not None:
        raise NotImplementedError(f"method {other}")  # numpy writes none, and each decoder is one more way in
    if any(entry.flag_bits & 1 for entry in entries):
        raise InvalidDataset(codes.FILE_DAMAGED, "The archive is encrypted; save it without a password.")
    refuse_bomb(path, sum(entry.file_size for entry in entries))
    named = {entry.filename.removesuffix(".npy"): entry for entry in entries}
    if len(named) != len(entries):
        raise InvalidDataset(codes.COLUMN_INVALID, "Two arrays in the archive have the same name; rename one.")
    for name in named:
        refuse_name(name)
    return named


def _array(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> Array:
    name = entry.filename.removesuffix(".npy")
    if entry.compress_type == zipfile.ZIP_STORED:
        file, start = path, _data_offset(path, entry)
        _check_crc(path, start, entry)
    else:
        file, start = folder / f"column-{entry.header_offset}.npy", 0
        _unpack(archive, entry, file)
    with file.open("rb") as stream:
        stream.seek(start)
        shape, fortran, dtype = _header(name, stream)
        offset = stream.tell()
    return map_array(file, name, dtype, shape, (offset, start + entry.file_size), order="F" if fortran else "C")


def map_array(
    path: Path,
    name: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    span: tuple[int, int],
    *,
    order: Any = "C",
) -> Array:
    """The array whose elements fill the bytes `span` of the file, memory-mapped read-only.

    Raises:
        InvalidDataset: an element type that is not supported, or a shape that does not fill the bytes.
    """
    refuse_dtype(name, dtype)
    if len(shape) > MAX_RANK:
        raise InvalidDataset(
            codes.COLUMN_INVALID, f"Column {name!r} has {len(shape)} dimensions; at most {MAX_RANK} are read."
        )
    start, end = span
    if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize != end - start:
        raise InvalidDataset(
            codes.FILE_DAMAGED,
            f"Column {name!r} says it has shape {shape} of {dtype.name}, but {end - start} bytes are stored for it.",
        )
    if math.prod(shape) == 0:
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=start, shape=shape, order=order)


def _header(name: str, stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, Fortran order and element type; leaves `stream` at the first element.

    numpy's own parser is not used: it repairs headers of Python 2, and fails on broken ones in many ways.
    """
    magic = stream.read(8)
    if magic[:6] != b"\x93NUMPY" or magic[6:] not in _LENGTHS:
        raise _unreadable(name, "it has no header")
    length = _LENGTHS[magic[6:]]
    (size,) = struct.unpack(length, stream.read(struct.calcsize(length)))
    if size > _MAX_NPY_HEADER:
        raise _unreadable(name, f"its header has {size} bytes")
    try:
        header = ast.literal_eval(stream.read(size).decode("utf-8"))
        descr, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise _unreadable(name, "its header is broken") from error
    if "O" in str(descr):
        raise UnsafeFile(f"Column {name!r} holds pickled Python objects, which can run code when loaded. {_UNPICKLED}")
    sizes = isinstance(shape, tuple) and all(type(dim) is int and 0 <= dim < 2**62 for dim in shape)
    if not sizes or not isinstance(fortran, bool):
        raise _unreadable(name, "its header is broken")
    try:
        if not isinstance(descr, str) or not _DESCR.fullmatch(descr):
            raise TypeError(f"{str(descr)[:80]!r} is no plain type")
        return shape, fortran, np.dtype(descr)
    except TypeError as error:
        raise InvalidDataset(codes.COLUMN_INVALID, f"Column {name!r}: {error}; store plain numbers.") from error


def _unreadable(name: str, why: str) -> InvalidDataset:
    return InvalidDataset(codes.FILE_DAMAGED, f"Column {name!r} is not a readable .npy array: {why}.")


def _data_offset(path: Path, entry: zipfile.ZipInfo) -> int:
    with path.open("rb") as file:
        file.seek(entry.header_offset)
        head = file.read(_LOCAL_HEADER)
        named = file.read(int.from_bytes(head[26:28], "little"))
    if len(head) < _LOCAL_HEADER or head[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile("an entry has no local header")
    name, extra = struct.unpack("<HH", head[26:30])
    start = entry.header_offset + _LOCAL_HEADER + int(name) + int(extra)
    if named != encoded_name(entry):
        raise zipfile.BadZipFile("an entry is not where the directory says")
    if start + entry.file_size > path.stat().st_size or entry.compress_size != entry.file_size:
        raise zipfile.BadZipFile("an entry reaches past the end of the file")
    return start


def _check_crc(path: Path, start: int, entry: zipfile.ZipInfo) -> None:
    """Stored entries are mapped, not read through zipfile, so their checksum is on us."""
    crc, left = 0, entry.file_size
    with path.open("rb") as file:
        file.seek(start)
        while left and (chunk := file.read(min(left, CHUNK_BYTES))):
            crc, left = zlib.crc32(chunk, crc), left - len(chunk)
    if crc != entry.CRC:
        raise zipfile.BadZipFile(f"wrong checksum in {entry.filename!r}")


def _unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, destination: Path) -> None:
    """Stream one entry to a file. zipfile stops at the declared size, which `refuse_bomb` has judged."""
    with archive.open(entry) as source, destination.open("wb") as sink:
        while chunk := source.read(CHUNK_BYTES):
            sink.write(chunk)
    if destination.stat().st_size != entry.file_size:
        raise EOFError(f"{entry.filename!r} ends early")
