"""Types and defaults of pydantic's fields, in words."""

import types
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

NAMES: dict[Any, str] = {
    int: "integer",
    float: "number",
    bool: "true, false",
    str: "text",
    Path: "path",
    SecretStr: "secret text",
    type(None): "null",
    datetime: "date and time",
    Any: "any",
}
BOUNDS: tuple[tuple[type, str, str], ...] = (
    (Ge, "ge", "at least"),
    (Gt, "gt", "above"),
    (Le, "le", "at most"),
    (Lt, "lt", "below"),
    (MinLen, "min_length", "entries: at least"),
    (MaxLen, "max_length", "entries: at most"),
)


def type_name(annotation: Any) -> str:
    """A type in words: choices are listed, classes are named."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_name(one) for one in arguments))
    if origin in (tuple, list):
        return f"list of {type_name(arguments[0])}"
    if origin is dict:
        return f"object of {type_name(arguments[1])}"
    if hasattr(annotation, "__metadata__"):
        return type_name(annotation.__origin__)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"object: {', '.join(f'`{name}`' for name in annotation.model_fields)}"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(f"`{member.value}`" for member in annotation)
    return NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def described(field: FieldInfo) -> str:
    """Type and bounds."""
    bounds = [
        f"{word} {getattr(one, attribute):g}"
        for one in field.metadata
        for kind, attribute, word in BOUNDS
        if isinstance(one, kind)
    ]
    return ", ".join([type_name(field.annotation), *bounds])


def default(field: FieldInfo) -> str:
    """The default as it is written in JSON or a variable; empty where there is none or it is empty."""
    value = field.get_default(call_default_factory=True, validated_data={})
    if field.is_required():
        return "required"
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_defaults=True)
    if isinstance(value, Enum):
        value = value.value
    words: dict[Any, str] = {True: "true", False: "false"} if isinstance(value, bool) else {}
    if value is None:
        return "`null`"
    if isinstance(value, tuple | list):
        value = "[" + ", ".join(str(one) for one in value) + "]"
    text = words.get(value, str(value)) if isinstance(value, bool) else str(value)
    return f"`{text}`" if text else ""
