"""The check of an uploaded dataset: reads all of it once and tells what it is. Imports no torch: checks are many."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from app.recipes.facts import DatasetFacts, TensorFacts
from app.recipes.fit import LABEL
from worker.engine.data import codes, read, text
from worker.engine.data.samples import Array
from worker.engine.errors import InvalidDataset


def check_dataset(path: Path, kind: str = "tensors", filename: str = "", scratch: Path | None = None) -> DatasetFacts:
    """What an uploaded dataset is.

    Args:
        path: the file.
        kind: ``tensors`` or ``text``, as the uploader said.
        filename: the uploader's name for it, for messages only: the format is told from the content.
        scratch: folder for what must be unpacked; the system's one for such where absent.

    Raises:
        UnsafeFile: the file could run code when loaded.
        InvalidDataset: the file cannot be used; the code says why and the detail what would work.
    """
    check = _CHECKS.get(kind)
    if check is None:
        raise InvalidDataset(
            codes.KIND_UNSUPPORTED, f"{filename or path.name}: no kind {kind!r} of dataset; say tensors or text."
        )
    with TemporaryDirectory(prefix="check-", dir=scratch) as folder:
        return check(path, Path(folder))


def _check_tensors(path: Path, folder: Path) -> DatasetFacts:
    table = read.read(path, folder)
    columns = tuple(
        TensorFacts(name=name, dtype=array.dtype.name, shape=array.shape[1:]) for name, array in table.items()
    )
    label = _label(table[LABEL]) if LABEL in table else None
    return DatasetFacts(columns=columns, samples=len(next(iter(table.values()))), label=label)


def _check_text(path: Path, _folder: Path) -> DatasetFacts:
    if path.stat().st_size == 0:
        raise InvalidDataset(codes.EMPTY_FILE, "The file is empty; upload .jsonl with a field text, or .txt.")
    samples = sum(1 for _ in text.read(path))
    if samples == 0:
        raise InvalidDataset(codes.TOO_FEW_SAMPLES, "The file holds no text.")
    return DatasetFacts(columns=(TensorFacts(name="text", dtype="str", shape=()),), samples=samples)


_CHECKS: dict[str, Callable[[Path, Path], DatasetFacts]] = {"tensors": _check_tensors, "text": _check_text}


def _label(labels: Array) -> dict[str, Any]:
    whole = labels.dtype.kind in "iub"
    convert: Callable[[Any], int | float] = int if whole else float
    return {"kind": "class" if whole else "float", "min": convert(labels.min()), "max": convert(labels.max())}
