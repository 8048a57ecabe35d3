"""What the service reads, as `make operators` wrote it from the service's own tables."""

import json
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def table() -> dict[str, Any]:
    """The content of ``operators.json``."""
    data: dict[str, Any] = json.loads(files(__package__).joinpath("operators.json").read_text("utf-8"))
    return data


@cache
def onnx_operators() -> frozenset[str]:
    """Standard operators by name, others with their domain."""
    return frozenset(table()["onnx"]["operators"])


@cache
def aten_targets() -> frozenset[str]:
    """What a ``.pt2`` may call, as it names it; ``torch.ops.aten.relu`` is the overload ``default``."""
    aten = table()["pt2"]["aten"]
    names = {f"torch.ops.aten.{name}.{overload}" for name, known in aten.items() for overload in known.split()}
    plain = {name.removesuffix(".default") for name in names if name.endswith(".default")}
    return frozenset(names | plain | set(table()["pt2"]["other"]))


@cache
def architectures() -> frozenset[str]:
    """The ``model_type`` of every model of transformers that is read as a folder."""
    return frozenset(table()["transformers"]["architectures"])


@cache
def heads() -> tuple[str, ...]:
    """What the name of a class may end with."""
    return tuple(table()["transformers"]["heads"])
