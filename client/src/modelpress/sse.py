"""Server-Sent Events, parsed without any I/O (HTML standard, 9.2.6)."""

import codecs
import json
from collections.abc import Iterator

from modelpress.errors import ProtocolError
from modelpress.views import Event


class EventParser:
    """Bytes in, events out. `last_id` and `retry_s` are what the stream said last."""

    def __init__(self, last_id: str | None = None) -> None:
        self.last_id = last_id
        self.retry_s: float | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self._type = ""
        self._data: list[str] = []
        self._id = last_id

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that these bytes complete; a rest without a line end is kept for the next call."""
        self._text += self._decoder.decode(data)
        # A lone CR at the end may be the first half of CRLF: leave it until more is there.
        held = "\r" if self._text.endswith("\r") else ""
        text = self._text.removesuffix("\r").replace("\r\n", "\n").replace("\r", "\n")
        *lines, rest = text.split("\n")
        self._text = rest + held
        for line in lines:
            event = self._line(line)
            if event is not None:
                yield event

    def _line(self, line: str) -> Event | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._type = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_s = int(value) / 1000
        return None

    def _dispatch(self) -> Event | None:
        data, kind = "\n".join(self._data), self._type
        self._data, self._type = [], ""
        self.last_id = self._id
        if not data:
            return None
        try:
            parsed = json.loads(data)
        except ValueError as error:
            raise ProtocolError(f"event {self.last_id}: its data is not JSON") from error
        if not isinstance(parsed, dict):
            raise ProtocolError(f"event {self.last_id}: its data is not an object")
        return Event(self.last_id or "", kind or "message", parsed)
