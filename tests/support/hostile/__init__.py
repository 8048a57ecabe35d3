"""The corpus of hostile files: named cases, each a small function that writes a file, by what it tries.

`harness` takes them through the check of an upload behind the walls of the sandbox; docs/sandbox.md counts them.
"""

from collections import Counter

from tests.support.hostile import onnx_data, onnx_models, onnx_operators
from tests.support.hostile.arrays import NPZ
from tests.support.hostile.bombs import BOMBS
from tests.support.hostile.case import ACCEPTED, FULL, KNOWN, Case, Group
from tests.support.hostile.damage import FLIPPED, TRUNCATED
from tests.support.hostile.lies import LIES
from tests.support.hostile.names import LINKS, NAMES
from tests.support.hostile.onnx_parts import ONNX
from tests.support.hostile.pickles import PICKLES
from tests.support.hostile.polyglots import POLYGLOTS
from tests.support.hostile.pt2_code import CODE
from tests.support.hostile.pt2_structure import STRUCTURE
from tests.support.hostile.settings import SETTINGS
from tests.support.hostile.tables import PARQUET
from tests.support.hostile.texts import TEXT
from tests.support.hostile.tokenizers import TOKENIZERS
from tests.support.hostile.weights import SAFE

#: What adds its cases to a group that it does not make.
PARTS = (onnx_data, onnx_models, onnx_operators)
#: Those that are checked in seconds.
QUICK = (PICKLES, CODE, NAMES, LINKS, LIES, ONNX, STRUCTURE, SAFE, NPZ, PARQUET, TEXT, POLYGLOTS)
#: Those that take minutes: models that are really built, files that are large once they are there, and many of them.
SLOW = (BOMBS, SETTINGS, TOKENIZERS, TRUNCATED, FLIPPED)
GROUPS: dict[str, Group] = {group.name: group for group in (*QUICK, *SLOW)}


def counts() -> dict[str, int]:
    """Heading -> number of cases."""
    return dict(Counter(case.group for group in GROUPS.values() for case in group))


__all__ = ["ACCEPTED", "FULL", "GROUPS", "KNOWN", "QUICK", "SLOW", "Case", "Group", "counts"]
