"""What the JSON Schemas of parameters say of them."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import Field

from app.recipes import METHODS, Limits, Step
from app.recipes.described import Described


def undescribed(schema: dict[str, Any]) -> Iterator[str]:
    for name, value in schema.get("properties", {}).items():
        if "description" not in value and name != "method":
            yield f"{schema['title']}.{name}"
    for part in schema.get("$defs", {}).values():
        yield from undescribed(part)


@pytest.mark.parametrize("model", [*METHODS.values(), Limits], ids=lambda model: model.__name__)
def test_every_parameter_is_described(model: type[Described]) -> None:
    assert not list(undescribed(model.model_json_schema()))


def test_descriptions_come_from_the_docstrings_of_the_class_and_those_above_it() -> None:
    schema = METHODS["quantize.mixed"].model_json_schema()
    assert schema["description"].startswith("As many bits for each layer's weights")
    assert "Attributes:" not in schema["description"]
    properties = schema["properties"]
    assert properties["choices"]["description"] == "widths that a layer may get."
    assert properties["layers"]["description"] == Step.model_json_schema()["properties"]["layers"]["description"]
    elsewhere = METHODS["quantize.weights"].model_json_schema()["properties"]
    assert properties["group_size"]["description"] == elsewhere["group_size"]["description"]


def test_a_description_of_the_field_itself_wins() -> None:
    class Own(Described):
        """One.

        Attributes:
            size: of the docstring.
        """

        size: int = Field(1, description="of the field")

    assert Own.model_json_schema()["properties"]["size"]["description"] == "of the field"
