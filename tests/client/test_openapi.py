"""The client keeps up with the service: every operation is reached, and every field of its answers is known.

Each call of the SDK is made once. What answers is made of the service's own OpenAPI document: every field that an
answer can have, filled in.
"""

import dataclasses
import hashlib
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from modelpress import Client, JobRequest, Page, Retries
from modelpress.client import AsyncClient
from modelpress.decode import View
from modelpress.wire import BlockingWire

from app.config import Settings
from app.main import create_app

#: For probes and Prometheus, not for clients.
PROBES = {"GET /healthz", "GET /readyz", "GET /metrics"}
CONTENT = b"content"
#: Objects of which the document does not tell the inside, as far as they have to have one; and what has to be true.
INSIDE = {"gate": {"passed": True, "checks": []}, "sha256": hashlib.sha256(CONTENT).hexdigest()}
EVENTS = b'id: 1\nevent: state\ndata: {"state": "succeeded"}\n\n'
REQUEST = JobRequest(model_id="mdl_1", recipe="auto", targets=["torch"])


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(Settings(key_pepper="p" * 40)).openapi()


class Answering:
    """Answers as the document says, and remembers what was asked."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.schemas = document["components"]["schemas"]
        self.operations = [
            (method.upper(), path, re.compile(re.sub(r"\{\w+\}", "[^/:]+", path)), operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        ]
        self.reached: set[str] = set()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        for method, path, pattern, operation in self.operations:
            if method == request.method and pattern.fullmatch(request.url.path):
                self.reached.add(f"{method} {path}")
                return self.answer(request, operation)
        raise AssertionError(f"the service has no {request.method} {request.url.path}")

    def answer(self, request: httpx.Request, operation: Mapping[str, Any]) -> httpx.Response:
        status = min(code for code in operation["responses"] if code.startswith("2"))
        if request.headers["accept"] == "text/event-stream":
            return httpx.Response(200, stream=httpx.ByteStream(EVENTS))
        headers = {"Location": "/v1/uploads/upl_1", "Upload-Offset": "7", "Upload-Length": "7"}
        content = operation["responses"][status].get("content", {})
        kind = next(iter(content), "")
        if "json" in kind:
            body = json.dumps(self.sample(content[kind].get("schema", {}))).encode()
        else:
            body = CONTENT if kind else b""
        return httpx.Response(int(status), headers=headers, stream=httpx.ByteStream(body))

    def sample(self, schema: Mapping[str, Any], name: str = "") -> Any:
        """A value with everything in it."""
        if "$ref" in schema:
            return self.sample(self.schemas[schema["$ref"].rpartition("/")[2]], name)
        if "anyOf" in schema:
            return self.sample(next(one for one in schema["anyOf"] if one.get("type") != "null"), name)
        if name in INSIDE:
            return INSIDE[name]
        if "enum" in schema or "const" in schema:
            return schema["const"] if "const" in schema else schema["enum"][-1]
        if name == "next_cursor":
            return None
        match schema.get("type"):
            case "object":
                more = schema.get("additionalProperties")
                extra = {"key": self.sample(more)} if isinstance(more, dict) else {}
                return extra | {key: self.sample(one, key) for key, one in schema.get("properties", {}).items()}
            case "array":
                return [self.sample(schema.get("items", {}))]
            case "string":
                return "2026-01-02T03:04:05Z" if schema.get("format") == "date-time" else "text"
            case kind:
                return {"integer": 1, "number": 0.5, "boolean": True}.get(str(kind), "anything")


#: A value for each parameter that a call of the SDK demands.
GIVEN: Mapping[str, Any] = {
    "id": "x_1",
    "layout": "triton",
    "delivery_id": "whd_1",
    "name": "name",
    "url": "https://example.com",
    "events": ["job.failed"],
    "quotas": {"jobs": 1},
    "request": REQUEST,
    "since": datetime(2026, 1, 1, tzinfo=UTC),
}


def unknown(view: View, where: str) -> Iterator[str]:
    """Fields of the answer that the view does not spell out, at any depth."""
    known = {field.name: getattr(view, field.name) for field in dataclasses.fields(view)}
    yield from (f"{where}.{name}" for name in view.raw if name not in known)
    for name, value in known.items():
        for one in value if isinstance(value, tuple) else [value]:
            if isinstance(one, View):
                yield from unknown(one, f"{where}.{name}")


@pytest.fixture(scope="module")
def walked(
    document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[set[str], list[str], dict[str, Any]]:
    """What was reached, which fields are unknown, and what each call answered."""
    folder = tmp_path_factory.mktemp("walk")
    (folder / "model.pt2").write_bytes(CONTENT)
    answering = Answering(document)
    client = Client("http://service", "key", retries=Retries(attempts=1))
    client._session.wire = BlockingWire(httpx.Client(transport=httpx.MockTransport(answering)))
    given = {**GIVEN, "path": folder / "model.pt2", "target": folder / "target"}
    missing: list[str] = []
    answers: dict[str, Any] = {}
    for noun, calls in nouns(client).items():
        for name, call in calls.items():
            needed = [one for one in inspect.signature(call).parameters.values() if one.default is one.empty]
            arguments = [given[one.name] for one in needed if one.kind is not one.VAR_KEYWORD]
            answer = call(*arguments)
            answer = list(answer) if inspect.isgenerator(answer) else answer
            answers[f"{noun}.{name}"] = answer
            several = list | tuple
            items = answer.items if isinstance(answer, Page) else answer if isinstance(answer, several) else [answer]
            for item in items:
                if isinstance(item, View):
                    missing += unknown(item, type(item).__name__)
    return answering.reached, sorted(set(missing)), answers


def nouns(client: Client | AsyncClient) -> dict[str, dict[str, Any]]:
    """Every noun of a client with its calls."""
    return {
        noun: {name: call for name, call in inspect.getmembers(one, callable) if not name.startswith("_")}
        for noun, one in vars(client).items()
        if not noun.startswith("_")
    }


def test_every_operation_is_reached(document: dict[str, Any], walked: Any) -> None:
    operations = {
        f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods
    } - PROBES
    assert len(operations) > 45
    assert walked[0] == operations


def test_every_field_of_every_answer_is_known(walked: Any) -> None:
    assert walked[1] == []


def test_every_call_was_made_and_answers_a_view(walked: Any) -> None:
    views = {name: answer for name, answer in walked[2].items() if isinstance(answer, View)}
    assert {"jobs.create", "jobs.estimate", "usage.get", "webhooks.create", "keys.rotate"} <= views.keys()
    assert len(walked[2]) > 60
