"""A form of text fields and one file, parsed as it arrives; the file's bytes are handed on, never kept.

The grammar is python-multipart's push parser; this file turns its callbacks into events and holds the limits.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from python_multipart.exceptions import FormParserError, MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.errors import BadRequest, Invalid, UnsupportedMedia

FILE_FIELD = "file"
MAX_FIELDS = 32
MAX_FIELD_BYTES = 256 * 1024
_LONGEST_NAME = 255


@dataclass(frozen=True)
class FileStart:
    """The file's part begins."""

    filename: str


@dataclass(frozen=True)
class FileData:
    """Bytes of the file."""

    data: bytes


@dataclass(frozen=True)
class Field:
    """A whole text field."""

    name: str
    value: str


Event = FileStart | FileData | Field


def boundary_of(content_type: str) -> bytes:
    """The boundary in a Content-Type header. Raises `UnsupportedMedia`, `BadRequest`."""
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        raise UnsupportedMedia("Send multipart/form-data with a part `file`, or JSON with `upload_id` or `source`.")
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise BadRequest("The Content-Type multipart/form-data has no boundary.", code="invalid_multipart")
    return boundary


class FormParser:
    """Feed it the body; it gives events in the order of the parts."""

    def __init__(self, boundary: bytes) -> None:
        callbacks: Any = {
            name: getattr(self, f"_{name}")
            for name in (
                "on_part_begin",
                "on_part_data",
                "on_part_end",
                "on_header_field",
                "on_header_value",
                "on_header_end",
                "on_headers_finished",
                "on_end",
            )
        }
        try:
            self._parser = MultipartParser(boundary, callbacks)
        except FormParserError as error:
            raise _malformed(error) from error
        self._events: list[Event] = []
        self._names: set[str] = set()
        self._ended = False
        self._new_part()

    def feed(self, data: bytes) -> Iterator[Event]:
        """Takes a piece of the body. Raises `BadRequest`, `Invalid`."""
        try:
            self._parser.write(data)
        except MultipartParseError as error:
            raise _malformed(error) from error
        events, self._events = self._events, []
        yield from events

    def finish(self) -> None:
        """The body is over. Raises `BadRequest` where parts are cut, `Invalid` where there was no file."""
        if not self._ended:
            raise BadRequest("The body ends before its last boundary: it was cut on the way.", code="body_truncated")
        if FILE_FIELD not in self._names:
            raise Invalid("The form has no part `file` with a filename.", code="file_missing")

    def _new_part(self) -> None:
        self._header_name = b""
        self._header_value = b""
        self._headers: dict[bytes, bytes] = {}
        self._name = ""
        self._value: bytearray | None = None

    def _on_part_begin(self) -> None:
        self._new_part()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = _text(options.get(b"name", b""), "the name of a part")
        if kind != b"form-data" or not name or len(name) > _LONGEST_NAME:
            raise BadRequest(
                'A part of the form has no header `Content-Disposition: form-data; name="..."`.',
                code="invalid_multipart",
            )
        if name in self._names:
            raise Invalid(f"The form has `{name}` more than once.", code="duplicate_field")
        self._names.add(name)
        if len(self._names) > MAX_FIELDS:
            raise Invalid(f"The form has more than {MAX_FIELDS} fields.", code="too_many_fields")
        self._name = name
        filename = options.get(b"filename")
        if name != FILE_FIELD:
            if filename is not None:
                raise Invalid(f"`{name}` is sent as a file; only `file` may be one.", code="unexpected_file")
            self._value = bytearray()
            return
        if filename is None:
            raise Invalid("The part `file` has no filename; send it as a file.", code="file_missing")
        self._events.append(FileStart(basename(_text(filename, "the filename"))))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._value is None:
            self._events.append(FileData(data[start:end]))
            return
        if len(self._value) + end - start > MAX_FIELD_BYTES:
            raise Invalid(f"`{self._name}` is longer than {MAX_FIELD_BYTES} bytes.", code="field_too_long")
        self._value += data[start:end]

    def _on_part_end(self) -> None:
        if self._value is not None:
            self._events.append(Field(self._name, _text(bytes(self._value), f"`{self._name}`")))

    def _on_end(self) -> None:
        self._ended = True


def _malformed(error: FormParserError) -> BadRequest:
    return BadRequest(f"The multipart body cannot be read: {error}.", code="invalid_multipart")


def _text(data: bytes, what: str) -> str:
    with contextlib.suppress(UnicodeDecodeError):
        text = data.decode()
        if "\0" not in text:
            return text
    raise BadRequest(f"In the form, {what} is not UTF-8 text without NUL.", code="invalid_multipart")


def basename(filename: str) -> str:
    """The last part of a path, whichever way its separators lean; ``upload`` where nothing is left."""
    name = filename.replace("\\", "/").rpartition("/")[2]
    name = "".join(character for character in name if character.isprintable())
    return name[-_LONGEST_NAME:] if name.strip(". ") else "upload"
