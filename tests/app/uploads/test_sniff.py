"""First bytes: whatever they are, looking at them never fails."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import UnsupportedMedia
from app.uploads.sniff import refuse_code

ZIP_PIECES = st.lists(st.one_of(st.binary(max_size=40), st.just(b"PK\x03\x04"), st.just(b"a/data.pkl"))).map(b"".join)

PT2_FILES = sorted((Path(__file__).parents[2] / "engine/formats/pt2_files").glob("*/*.pt2"))


@pytest.mark.parametrize("path", PT2_FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_models_of_every_pytorch_version_pass(path: Path) -> None:
    """Up to PyTorch 2.8 they hold archives of torch.save, which alone are refused."""
    refuse_code(path.name, path.read_bytes())


@given(filename=st.text(max_size=20), head=st.one_of(st.binary(max_size=200), ZIP_PIECES))
def test_any_bytes(filename: str, head: bytes) -> None:
    try:
        refuse_code(filename, head)
    except UnsupportedMedia as error:
        assert error.code == "unsafe_format"
