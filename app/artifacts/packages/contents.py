"""Where the files that a server wants lie in an artifact; nothing but the directory of a zip is read."""

import io
import struct
from collections.abc import Mapping
from typing import Any, Final, Protocol
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from app.errors import Invalid
from app.storage import ObjectStore
from app.tables import Artifact
from app.web.archive import Piece


class Contents(Protocol):
    """Finds the files of a format."""

    async def __call__(self, store: ObjectStore, artifact: Artifact, /) -> Mapping[str, Piece]:
        """Name -> place. Raises `Invalid` where the artifact is not what it says it is."""


#: A directory of two entries lies within the end of the file that is read.
_END: Final = 64 * 1024
_LOCAL_HEADER: Final = struct.Struct("<4s22xHH")
_OPENVINO: Final = ("model.xml", "model.bin")
_ENCRYPTED: Final = 1


async def onnx(store: ObjectStore, artifact: Artifact) -> Mapping[str, Piece]:
    """The file itself."""
    return {"model.onnx": Piece(0, artifact.size_bytes)}


async def openvino(store: ObjectStore, artifact: Artifact) -> Mapping[str, Piece]:
    """The graph and the weights, which lie uncompressed in a zip."""
    start = max(0, artifact.size_bytes - _END)
    tail = await _read(store, artifact, start, artifact.size_bytes)
    try:
        with ZipFile(_Tail(tail, start)) as directory:
            found = {info.filename: info for info in directory.infolist()}
    except (BadZipFile, NotImplementedError, ValueError, OSError, struct.error) as error:
        raise _damaged(artifact, "it is no zip") from error
    if not set(_OPENVINO) <= set(found):
        raise _damaged(artifact, f"it does not hold {' and '.join(_OPENVINO)}")
    return {name: await _piece(store, artifact, found[name]) for name in _OPENVINO}


async def _piece(store: ObjectStore, artifact: Artifact, info: ZipInfo) -> Piece:
    """Behind its local header, whose length only the header itself tells."""
    at = info.header_offset
    if info.compress_type != ZIP_STORED or info.flag_bits & _ENCRYPTED or info.compress_size != info.file_size:
        raise _damaged(artifact, f"{info.filename} is compressed or encrypted")
    if not 0 <= at <= artifact.size_bytes - _LOCAL_HEADER.size:
        raise _damaged(artifact, f"{info.filename} lies outside")
    magic, name, extra = _LOCAL_HEADER.unpack(await _read(store, artifact, at, at + _LOCAL_HEADER.size))
    start = at + _LOCAL_HEADER.size + name + extra
    if magic != b"PK\x03\x04" or start + info.file_size > artifact.size_bytes:
        raise _damaged(artifact, f"{info.filename} lies outside")
    return Piece(start, start + info.file_size)


async def _read(store: ObjectStore, artifact: Artifact, start: int, end: int) -> bytes:
    return b"".join([data async for data in store.read(artifact.workspace_id, artifact.sha256, start, end)])


def _damaged(artifact: Artifact, why: str) -> Invalid:
    return Invalid(f"The artifact {artifact.filename!r} cannot be packaged: {why}.", code="artifact_damaged")


class _Tail(io.BytesIO):
    """The end of a file in the place of the whole."""

    def __init__(self, data: bytes, start: int) -> None:
        super().__init__(data)
        self._start = start

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_SET and offset < self._start:
            raise OSError("before the part that was read")
        return super().seek(offset - (self._start if whence == io.SEEK_SET else 0), whence) + self._start

    def tell(self) -> int:
        return super().tell() + self._start

    def read(self, size: Any = -1, /) -> bytes:
        return super().read(size)
