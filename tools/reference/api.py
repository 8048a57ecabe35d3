"""Every operation of the REST API, from its OpenAPI document."""

from collections import defaultdict
from typing import Any

from pydantic import SecretStr

from app.config import Settings
from app.main import create_app
from tools.reference.markdown import code, first_sentence, table
from tools.reference.markdown import page as _page

ABOUT = """
Paths, what they do, what they take and answer. Every field is in the service's own OpenAPI 3.1 document
(`/openapi.json`); what no reference tells is in [api.md](../api.md).
"""
VERBS = ("get", "post", "put", "patch", "delete", "head", "options")


def document() -> dict[str, Any]:
    """The OpenAPI document of a service with default settings; nothing is connected to."""
    settings = Settings(key_pepper=SecretStr("-"), store_url="file:///tmp", _env_file=None)
    return dict(create_app(settings).openapi())


def page() -> str:
    """docs/reference/api.md."""
    groups: dict[str, list[list[str]]] = defaultdict(list)
    for path, operations in document()["paths"].items():
        for verb in VERBS:
            if verb in operations:
                operation = operations[verb]
                tag = (operation.get("tags") or ["service"])[0]
                groups[tag].append(_row(path, verb, operation))
    head = ["call", "what", "takes", "answers"]
    return _page("Paths", ABOUT, *(f"## {tag}\n\n{table(head, rows)}" for tag, rows in sorted(groups.items())))


def _row(path: str, verb: str, operation: dict[str, Any]) -> list[str]:
    parameters = [one["name"] for one in operation.get("parameters", []) if one["in"] == "query"]
    bodies = list(operation.get("requestBody", {}).get("content", {}))
    takes = [code(*(f"{name}=" for name in parameters))] if parameters else []
    takes += [code(*bodies)] if bodies else []
    return [
        f"`{verb.upper()} {path}`",
        first_sentence(operation.get("summary")),
        "; ".join(takes),
        ", ".join(sorted(operation["responses"])),
    ]
