"""Good files cut off at many points, and with bytes flipped: seeded, so that each run sees the same."""

import random
from functools import cache

from tests.support.hostile import good
from tests.support.hostile.case import ACCEPTED, ANY, Group, Make

TRUNCATED = Group("truncated")
FLIPPED = Group("flipped")
#: How many points of each file, and how many seeds.
POINTS, SEEDS = 20, 20
#: Those of a format that says nothing of its end: lines of text, JSON that is cut is no JSON at all.
_OPEN = ("jsonl",)
#: Those that a cut leaves whole: gzip and tar are padded.
_PADDED = ("onnx-tgz",)


@cache
def _bytes(name: str) -> bytes:
    return good.FILES[name][1]()


def cut(name: str, share: float) -> Make:
    """The beginning of a file, never all of it."""
    return lambda canary: _bytes(name)[: min(int(len(_bytes(name)) * share), len(_bytes(name)) - 1)]


def flipped(name: str, seed: int) -> Make:
    """A file with one to four bytes changed."""

    def make(canary: object) -> bytes:
        chance = random.Random(f"{name}{seed}")
        data = bytearray(_bytes(name))
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] ^= chance.randint(1, 255)
        return bytes(data)

    return make


for _name, (_kind, _) in good.FILES.items():
    _whole = [ACCEPTED] if _name in (*_OPEN, *_PADDED) else []
    for _point in range(POINTS):
        _codes = [code for code in ANY if code != ACCEPTED] + _whole
        TRUNCATED.add(f"{_name}-{_point}", _kind, cut(_name, (_point + 0.5) / POINTS), *_codes)
    TRUNCATED.add(f"{_name}-last-byte", _kind, cut(_name, 1.0), *_codes)
    for _seed in range(SEEDS):
        FLIPPED.add(f"{_name}-{_seed}", _kind, flipped(_name, _seed), *ANY)
