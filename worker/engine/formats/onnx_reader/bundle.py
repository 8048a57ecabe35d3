"""An archive of an ONNX model and the files beside it that hold its weights."""

import posixpath
from collections.abc import Mapping

from worker.engine.errors import InvalidModel
from worker.engine.formats import codes
from worker.engine.formats.archive import Archive

SUFFIX = ".onnx"


class Bundle:
    """A checked archive with one ``.onnx`` in it.

    Raises:
        InvalidModel: not exactly one of them.
    """

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        models = sorted(name for name in archive.entries if name.endswith(SUFFIX))
        if len(models) != 1:
            named = ", ".join(repr(name[:120]) for name in models[:5])
            raise InvalidModel(
                codes.FILE_INCOMPLETE,
                f"The archive holds {len(models)} {SUFFIX} files, where one is needed: {named}. Keep one of them.",
            )
        self._name = models[0]
        self._files: dict[str, memoryview] = {}

    def model(self) -> memoryview:
        """The bytes of the model."""
        return self.archive.view(self._name)

    def external(self, where: Mapping[str, str], weight: str) -> memoryview:
        """The bytes of a weight.

        Args:
            where: ``location``, ``offset`` and ``length`` as ONNX's ``external_data`` has them.
            weight: its name, for messages.

        Raises:
            InvalidModel: a file that is not in the zip, a path that leaves it, bytes beyond its end.
        """
        location = where.get("location", "")
        name = posixpath.normpath(posixpath.join(posixpath.dirname(self._name), location))
        if not location or posixpath.isabs(location) or name.startswith("..") or "\\" in location:
            raise InvalidModel(
                codes.EXTERNAL_DATA, f"Weight {weight[:120]!r} lies at {location[:120]!r}, outside of the zip."
            )
        if name not in self._files:
            if name not in self.archive.entries:
                raise InvalidModel(
                    codes.FILE_INCOMPLETE,
                    f"Weight {weight[:120]!r} lies in {location[:120]!r}, which is not in the zip. Put it beside the "
                    f"{SUFFIX} and zip both again.",
                )
            self._files[name] = self.archive.view(name)
        data = self._files[name]
        try:
            offset = int(where.get("offset", "0"))
            length = int(where["length"]) if "length" in where else len(data) - offset
        except ValueError as error:
            raise InvalidModel(
                codes.WEIGHTS_INVALID, f"Weight {weight[:120]!r} has an offset or length that is no number."
            ) from error
        if offset < 0 or length < 0 or offset + length > len(data):
            raise InvalidModel(
                codes.WEIGHTS_INVALID,
                f"Weight {weight[:120]!r} lies at bytes {offset} to {offset + length} of {location[:120]!r}, which has "
                f"{len(data)}.",
            )
        return data[offset : offset + length]
