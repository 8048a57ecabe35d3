"""Names of the files in an archive, as the service takes them."""

from collections.abc import Collection, Mapping
from typing import TypeVar

from modelpress.inspection.report import Refused

Held = TypeVar("Held")
_MAX_NAME = 4096


def leaves(name: str) -> bool:
    """Whether a file of this name would lie outside of the archive's folder, on any system."""
    parts = name.split("/")
    return len(name) > _MAX_NAME or "\\" in name or "\0" in name or ":" in parts[0] or ".." in parts or "" in parts


def is_left_by_a_mac(name: str) -> bool:
    """What macOS adds to every archive that it makes; nobody reads it."""
    last = name.rpartition("/")[2]
    return name.startswith("__MACOSX/") or last.startswith("._") or last == ".DS_Store"


def without_top_folder(entries: Mapping[str, Held]) -> dict[str, Held]:
    """By name, without the folders that all of them lie in."""
    named = {name: entry for name, entry in entries.items() if not is_left_by_a_mac(name)}
    while named and all("/" in name for name in named) and len({name.partition("/")[0] for name in named}) == 1:
        named = {name.partition("/")[2]: entry for name, entry in named.items()}
    return named


def only_model(names: Collection[str]) -> str:
    """The one ``.onnx`` among the names; raises `Refused` where there are several."""
    models = sorted(name for name in names if name.endswith(".onnx"))
    if len(models) != 1:
        named = ", ".join(repr(name[:120]) for name in models[:5])
        raise Refused(
            "file_incomplete",
            f"The archive holds {len(models)} .onnx files, where one is needed: {named}. Keep one of them.",
        )
    return models[0]
