"""The form parser, however the network cuts the body."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ApiError
from app.uploads.multipart import Event, Field, FileData, FileStart, FormParser, boundary_of

BOUNDARY = b"b0undary"
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
NAMES = st.text("abcdefghij", min_size=1, max_size=8).filter(lambda name: name != "file")
#: Bytes that are hard on a parser of boundaries.
NASTY = st.lists(st.sampled_from([b"\r", b"\n", b"-", b"--", b"\r\n--", BOUNDARY, b"\r\n--" + BOUNDARY[:-1], b"x"]))
DATA = st.one_of(st.binary(max_size=300), NASTY.map(b"".join)).filter(
    lambda data: b"\r\n--" + BOUNDARY not in b"\r\n" + data
)


def _form(parts: list[tuple[str, bytes, str | None]]) -> bytes:
    body = b""
    for name, data, filename in parts:
        suffix = "" if filename is None else f'; filename="{filename}"'
        body += b"--" + BOUNDARY + f'\r\nContent-Disposition: form-data; name="{name}"{suffix}\r\n\r\n'.encode()
        body += data + b"\r\n"
    return body + b"--" + BOUNDARY + b"--\r\n"


def _parse(body: bytes, cuts: list[int]) -> list[Event]:
    """The events of `body`, sent in pieces; the file's bytes joined."""
    parser = FormParser(BOUNDARY)
    events: list[Event] = []
    places = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    for start, end in pairwise(places):
        for event in parser.feed(body[start:end]):
            if isinstance(event, FileData) and events and isinstance(events[-1], FileData):
                events[-1] = FileData(events[-1].data + event.data)
            else:
                events.append(event)
    parser.finish()
    return events


@given(
    fields=st.dictionaries(NAMES, TEXT, max_size=4),
    data=DATA,
    place=st.integers(0, 4),
    cuts=st.lists(st.integers(0, 2000), max_size=12),
)
def test_any_form_in_any_pieces(fields: dict[str, str], data: bytes, place: int, cuts: list[int]) -> None:
    parts: list[tuple[str, bytes, str | None]] = []
    expected: list[Event] = []
    for name, value in fields.items():
        if b"\r\n--" + BOUNDARY in b"\r\n" + value.encode():
            return
        parts.append((name, value.encode(), None))
        expected.append(Field(name, value))
    file: list[Event] = [FileStart("f.bin"), *([FileData(data)] if data else [])]
    place = min(place, len(parts))
    parts.insert(place, ("file", data, "f.bin"))
    expected[place:place] = file
    assert _parse(_form(parts), cuts) == expected


@given(body=st.binary(max_size=400), cuts=st.lists(st.integers(0, 400), max_size=5))
def test_garbage_is_told_and_nothing_else(body: bytes, cuts: list[int]) -> None:
    with pytest.raises(ApiError) as error:
        _parse(body, cuts)
    assert 400 <= error.value.status < 500


@given(data=DATA, keep=st.floats(0, 0.999))
def test_every_cut_form_is_told(data: bytes, keep: float) -> None:
    body = _form([("name", b"n", None), ("file", data, "f.bin")])
    body = body[: -len(b"--\r\n")]
    with pytest.raises(ApiError) as error:
        _parse(body[: int(len(body) * keep)], [])
    assert error.value.code in ("body_truncated", "invalid_multipart")


@given(mutation=st.tuples(st.integers(0, 10_000), st.integers(0, 255)), data=DATA)
def test_flipped_bytes_never_crash(mutation: tuple[int, int], data: bytes) -> None:
    body = bytearray(_form([("name", b"n", None), ("file", data, "f.bin")]))
    body[mutation[0] % len(body)] = mutation[1]
    try:
        _parse(bytes(body), [])
    except ApiError as error:
        assert 400 <= error.status < 500


@given(st.binary(max_size=100).map(lambda data: data.decode("latin-1")))
def test_any_content_type(header: str) -> None:
    try:
        assert boundary_of(header)
    except ApiError as error:
        assert error.status in (400, 415)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("a.pt2", "a.pt2"),
        ("/etc/passwd", "passwd"),
        ("..\\..\\x.onnx", "x.onnx"),
        ("../..", "upload"),
        ("", "upload"),
        ("a\x7fb", "ab"),
        ("x" * 300, "x" * 255),
    ],
)
def test_filename_is_a_plain_name(sent: str, kept: str) -> None:
    sent = sent.replace("\\", "\\\\")
    assert _parse(_form([("file", b"x", sent)]), [])[0] == FileStart(kept)
