"""Model files: one reader and one writer for each format, none of which runs anything that a file carries."""

from collections.abc import Callable
from pathlib import Path

from worker.engine.errors import InvalidModel
from worker.engine.formats import codes
from worker.engine.formats.batch import symbolic_batch
from worker.engine.formats.detect import detect
from worker.engine.formats.onnx_reader import OnnxSource, read_onnx
from worker.engine.formats.pt2 import read_pt2
from worker.engine.formats.pt2_writer import write_pt2
from worker.engine.formats.transformers_reader import read_transformers
from worker.engine.network import Network

READERS: dict[str, Callable[[Path], Network]] = {
    "onnx": read_onnx,
    "pt2": read_pt2,
    "transformers": read_transformers,
}
WRITERS: dict[str, Callable[[Network, Path], None]] = {"pt2": write_pt2}


def read(path: Path, format: str | None = None) -> Network:
    """Read a model file. A batch that it was exported with is made symbolic where that gives the same answers.

    Args:
        path: the file; its name does not matter.
        format: a key of `READERS` that the uploader promised; None: whatever it is.

    Raises:
        UnsafeFile: a file that could run code when loaded.
        InvalidModel: a file that cannot be read, or is not of `format`.
        Unsupported: a model beyond what a network can hold.
    """
    found = detect(path)
    if format is not None and format != found:
        raise InvalidModel(
            codes.FORMAT_MISMATCH, f"The file was announced as {format!r} but is {found!r}. Leave the format out."
        )
    return symbolic_batch(READERS[found](path))


__all__ = ["READERS", "WRITERS", "OnnxSource", "detect", "read"]
