"""The yardsticks, a route of Starlette and one of FastAPI, served as the API is: ``python -m benchmarks.load.bare``.

The second tells how much of the distance is the framework's.
"""

import json
import socket
import sys
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from app.embedded.serve import http_config

#: What JSON puts around the text.
_FRAME = len(json.dumps({"text": ""}, separators=(",", ":")))


class View(BaseModel):
    """What FastAPI checks and renders."""

    text: str


def starlette(size: int) -> Starlette:
    """Answers every path with `size` bytes of JSON, rendered for each request."""
    body = _body(size)

    async def answer(_: Request) -> JSONResponse:
        return JSONResponse(body)

    return Starlette(routes=[Route("/{path:path}", answer)])


def fastapi(size: int) -> FastAPI:
    """The same of a path with a parameter and a model of the answer."""
    app, body = FastAPI(), _body(size)

    @app.get("/v1/jobs/{job_id}")
    async def answer(job_id: str) -> View:
        return View(**body)

    @app.get("/healthz")
    async def health() -> None:
        return None

    return app


KINDS: dict[str, Callable[[int], Starlette]] = {"Starlette": starlette, "FastAPI": fastapi}


def _body(size: int) -> dict[str, str]:
    return {"text": "x" * (size - _FRAME)}


def main(descriptor: int, kind: str, size: int) -> None:
    """Serves until SIGTERM."""
    config = http_config(KINDS[kind](size), "127.0.0.1")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
