"""What hostile ``.pt2`` files are made of: the JSON of a good one, changed."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from tests.support.hostile import good
from tests.support.hostile.case import Make

MODEL, CONFIG = "models/model.json", "data/weights/model_weights_config.json"


def edited(entry: str, change: Callable[[Any, str], object]) -> Make:
    """The good ``.pt2`` with the JSON of one entry changed; the change gets the canary too."""

    def make(canary: object) -> bytes:
        content = good.entries_of(good.pt2(), top=True)
        document = json.loads(content[entry])
        change(document, str(canary))
        return good.zip_of(content | {entry: json.dumps(document).encode()}, top="m/")

    return make


def written(entry: str, data: bytes) -> Make:
    """The good ``.pt2`` with other bytes in one entry."""
    return lambda canary: good.zip_of({**good.entries_of(good.pt2(), top=True), entry: data}, top="m/")


def holders(document: Any, key: str) -> Iterator[dict]:
    """Every object in a document that has this key."""
    if isinstance(document, dict):
        if key in document:
            yield document
        for value in document.values():
            yield from holders(value, key)
    elif isinstance(document, list):
        for value in document:
            yield from holders(value, key)
