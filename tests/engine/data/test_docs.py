"""Every code that a dataset can be refused with is documented."""

from pathlib import Path

import pytest

from worker.engine.data import codes

DOCS = Path(__file__).parents[3] / "docs" / "datasets.md"


@pytest.mark.parametrize("code", sorted(codes.ALL))
def test_code_is_documented(code: str) -> None:
    assert f"`{code}`" in DOCS.read_text()
