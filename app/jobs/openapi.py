"""The JSON Schema of a body that is validated by hand, in a form that can stand anywhere in an OpenAPI document."""

from typing import Any

from pydantic import BaseModel


def inlined(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of `model` with every ``$ref`` replaced by what it names (no schema here names itself)."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                name = str(node["$ref"]).rpartition("/")[2]
                return resolve({**definitions[name], **{key: node[key] for key in node if key != "$ref"}})
            return {key: resolve(item) for key, item in node.items()}
        return [resolve(item) for item in node] if isinstance(node, list) else node

    resolved: dict[str, Any] = resolve(schema)
    return resolved
