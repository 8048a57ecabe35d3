"""What is written by hand beside the reference (tests/tools/test_reference.py) keeps up with the code."""

import re
from pathlib import Path

from tools.reference import errors

ROOT = Path(__file__).parents[2]


def test_every_code_is_documented() -> None:
    documented = set(re.findall(r"`([a-z_]+)`", (ROOT / "docs/errors.md").read_text()))
    codes = {code for found in errors.codes().values() for code in found}
    assert len(codes) > 40
    assert codes - documented == set()
