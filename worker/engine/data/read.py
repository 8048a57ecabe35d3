"""Reads a dataset of kind ``tensors`` from an untrusted file; the format is told from the content."""

from collections.abc import Callable
from pathlib import Path

from worker.engine.data import codes, npz, parquet, tensors
from worker.engine.data.samples import Array
from worker.engine.data.table import Table, validate
from worker.engine.errors import InvalidDataset, UnsafeFile

#: Format -> reader(path, scratch folder) of its columns.
READERS: dict[str, Callable[[Path, Path], dict[str, Array]]] = {
    "npz": npz.read,
    "safetensors": tensors.read,
    "parquet": parquet.read,
}

_WORKS = "Upload .npz (np.savez), .safetensors or .parquet."


def read(path: Path, folder: Path) -> Table:
    """The columns of a dataset: name -> array of shape (samples, ...), memory-mapped where possible.

    Args:
        path: the uploaded file.
        folder: private scratch folder for what must be unpacked.

    Raises:
        UnsafeFile: the file holds pickled objects.
        InvalidDataset: everything else that is wrong with it; the code says what.
    """
    return validate(READERS[detect(path)](path, folder))


def detect(path: Path) -> str:
    """The format of a file by its first and last bytes: a key of `READERS`.

    Raises:
        UnsafeFile: a pickle.
        InvalidDataset: empty, incomplete or unknown.
    """
    size = path.stat().st_size
    if size == 0:
        raise InvalidDataset(codes.EMPTY_FILE, f"The file is empty. {_WORKS}")
    with path.open("rb") as file:
        head = file.read(16)
        file.seek(max(0, size - 4))
        tail = file.read()
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "npz"
    if head.startswith(b"PAR1"):
        if tail != b"PAR1" or size < 12:
            raise InvalidDataset(codes.FILE_INCOMPLETE, "The .parquet file ends early; upload all of it.")
        return "parquet"
    if head[8:9] == b"{" and len(head) > 8:
        return "safetensors"
    if head.startswith(b"\x93NUMPY"):
        raise InvalidDataset(
            codes.UNKNOWN_FORMAT, "A single .npy array has no column name; save it with np.savez(path, input=array)."
        )
    if head[0] == 0x80 and head[1:2] <= b"\x05":
        raise UnsafeFile(f"The file is a Python pickle, which can run code when loaded. {_WORKS}")
    raise InvalidDataset(codes.UNKNOWN_FORMAT, f"The file is not a dataset that is known here. {_WORKS}")
