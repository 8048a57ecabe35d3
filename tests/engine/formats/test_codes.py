from pathlib import Path

import pytest

from worker.engine.formats import codes

PAGE = (Path(__file__).parents[3] / "docs" / "formats.md").read_text()


@pytest.mark.parametrize("code", sorted(codes.ALL))
def test_every_code_is_documented(code):
    assert f"| `{code}` |" in PAGE
