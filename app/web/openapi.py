"""The OpenAPI 3.1 document: what FastAPI derives, with the problem schema that all errors share."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import FastAPI

from app.web.problems import Problem

DESCRIPTION = """\
Upload a trained model and some data, say what you need, and download an artifact that was measured, as the exported
file, in the runtime it is for. Errors are RFC 9457 problems with a stable `code`; every POST takes an
`Idempotency-Key`."""


def _version() -> str:
    try:
        return version("modelpress-server")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0"


VERSION = _version()


def install(app: FastAPI) -> None:
    """Completes the document; made once, at its first use."""
    derive = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = derive()
            schemas = schema.setdefault("components", {}).setdefault("schemas", {})
            problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(problem.pop("$defs", {}))
            schemas["Problem"] = problem
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
