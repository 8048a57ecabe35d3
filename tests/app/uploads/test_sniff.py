"""First bytes: whatever they are, looking at them never fails."""

from hypothesis import given
from hypothesis import strategies as st

from app.errors import UnsupportedMedia
from app.uploads.sniff import refuse_code

ZIP_PIECES = st.lists(st.one_of(st.binary(max_size=40), st.just(b"PK\x03\x04"), st.just(b"a/data.pkl"))).map(b"".join)


@given(filename=st.text(max_size=20), head=st.one_of(st.binary(max_size=200), ZIP_PIECES))
def test_any_bytes(filename: str, head: bytes) -> None:
    try:
        refuse_code(filename, head)
    except UnsupportedMedia as error:
        assert error.code == "unsafe_format"
