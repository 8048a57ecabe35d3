"""JSON into frozen dataclasses, tolerant of fields that a newer service adds."""

import dataclasses
import types
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any, Self, Union, get_args, get_origin, get_type_hints

from modelpress.errors import ProtocolError

#: What JSON gives for each scalar annotation: 1.0 may arrive as 1.
SCALARS: Mapping[type, type | tuple[type, ...]] = {str: str, int: int, float: (int, float), bool: bool}


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
    """Base of what the service answers.

    Attributes:
        raw: the JSON object as received, with fields that this version of the client does not know.
    """

    raw: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    def _repr_html_(self) -> str:
        """How a notebook shows it."""
        from modelpress import notebook

        return notebook.fields(self)

    @classmethod
    def parse(cls, data: Any) -> Self:
        """Reads a JSON object.

        Raises:
            ProtocolError: a field that has no default is absent, or a value has another type.
        """
        if not isinstance(data, dict):
            raise ProtocolError(f"expected a {cls.__name__} object, got {type(data).__name__}")
        hints: Mapping[str, Any] = _hints(cls)  # type: ignore[arg-type]  # classes are hashable
        values = {name: _value(hints[name], data[name], f"{cls.__name__}.{name}") for name in hints if name in data}
        try:
            return cls(**{**values, "raw": data})
        except TypeError as error:
            raise ProtocolError(f"incomplete {cls.__name__}: {error}") from error


@cache
def _hints(cls: type[View]) -> Mapping[str, Any]:
    names = {field.name for field in dataclasses.fields(cls)} - {"raw"}
    return {name: hint for name, hint in get_type_hints(cls).items() if name in names}


def _value(kind: Any, value: Any, where: str) -> Any:
    """`value` as the annotation `kind` says."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        inner = [arg for arg in args if arg is not type(None)]
        return None if value is None else _value(inner[0] if len(inner) == 1 else Any, value, where)
    try:
        if isinstance(kind, type) and issubclass(kind, View):
            return kind.parse(value)
        if kind is datetime:
            return datetime.fromisoformat(value)
        if origin is tuple:
            return tuple(_value(args[0], item, where) for item in _of(list, value))
        if origin is Mapping:
            return {name: _value(args[1], item, where) for name, item in _of(dict, value).items()}
        return _of(kind, value) if kind in SCALARS else value
    except (TypeError, ValueError) as error:
        raise ProtocolError(f"{where}: {error}") from error


def _of(kind: type, value: Any) -> Any:
    if not isinstance(value, SCALARS.get(kind, kind)):
        raise TypeError(f"expected a {kind.__name__}, got {type(value).__name__}")
    return value
