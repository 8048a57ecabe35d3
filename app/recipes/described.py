"""Parameters that say in their JSON Schema what they are for, out of the docstring of their class."""

import re
from collections.abc import Mapping
from functools import cache
from inspect import cleandoc
from typing import Any

from pydantic import BaseModel, ConfigDict

_SECTION = "Attributes:"
_ENTRY = re.compile(r"^ {4}(\w+(?: / \w+)*):\s(.*)$")
_ELSEWHERE = re.compile(r"^see `(\w+)`\.$")


def _describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Cuts the docstring apart: its head describes the whole, each attribute its own property."""
    if "description" in schema:
        schema["description"] = schema["description"].partition(_SECTION)[0].strip()
    told = _told(model)
    for name, value in schema.get("properties", {}).items():
        if name in told:
            value.setdefault("description", told[name])


class Described(BaseModel):
    """Takes no other fields than its own, and cannot be changed; attributes are told in the docstring."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_describe)


@cache
def _told(model: type[BaseModel]) -> Mapping[str, str]:
    """Attribute -> what the docstring of the nearest class says of it; ``see `Other`.`` is looked up there."""
    told: dict[str, str] = {}
    for cls in reversed([one for one in model.__mro__ if issubclass(one, Described) and one is not Described]):
        told |= _attributes(cls.__doc__ or "")
    for name, text in told.items():
        found = _ELSEWHERE.match(text)
        if found is not None:
            told[name] = _told(_known(Described)[found[1]])[name]
    return told


def _attributes(docstring: str) -> dict[str, str]:
    told: dict[str, str] = {}
    names: list[str] = []
    for line in cleandoc(docstring).partition(_SECTION)[2].splitlines():
        entry = _ENTRY.match(line)
        if entry is not None:
            names = entry[1].split(" / ")
            told |= dict.fromkeys(names, entry[2].strip())
        elif line.strip():
            told |= {name: f"{told[name]} {line.strip()}" for name in names}
    return told


def _known(base: type[BaseModel]) -> dict[str, type[BaseModel]]:
    found = {cls.__name__: cls for cls in base.__subclasses__()}
    for cls in list(found.values()):
        found |= _known(cls)
    return found
