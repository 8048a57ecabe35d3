"""The parser of Server-Sent Events."""

import contextlib
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelpress import Event, ProtocolError
from modelpress.sse import EventParser

values = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=8), min_size=1, max_size=3)


@given(data=st.lists(values, max_size=5), end=st.sampled_from(["\n", "\r\n", "\r"]), cuts=st.lists(st.integers(0, 999)))
def test_events_do_not_depend_on_how_the_bytes_arrive(data: list[dict[str, object]], end: str, cuts: list[int]) -> None:
    text = "".join(
        end.join(["event: metric", f"id: {n}", f"data: {json.dumps(one, ensure_ascii=False)}", "", ""])
        for n, one in enumerate(data)
    )
    raw = text.encode() + b"\n"
    edges = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    parser = EventParser()
    got = [event for start, stop in itertools.pairwise(edges) for event in parser.feed(raw[start:stop])]
    assert got == [Event(str(n), "metric", one) for n, one in enumerate(data)]


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(raw: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        list(EventParser().feed(raw))


def test_comments_retry_and_data_over_lines() -> None:
    parser = EventParser("4")
    raw = b': beat\nretry: 1500\nretry: x\nid: 5\nevent: log\ndata: {"a":\ndata: 1}\n\n'
    assert list(parser.feed(raw)) == [Event("5", "log", {"a": 1})]
    assert (parser.last_id, parser.retry_s) == ("5", 1.5)


def test_an_event_that_was_not_ended_does_not_move_the_resume_point() -> None:
    parser = EventParser()
    assert list(parser.feed(b'id: 1\ndata: {}\n\nid: 2\ndata: {"x"')) == [Event("1", "message", {})]
    assert parser.last_id == "1"


@pytest.mark.parametrize("data", [b"data: nope\n\n", b"data: [1]\n\n"])
def test_data_that_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="data is not"):
        list(EventParser().feed(data))
