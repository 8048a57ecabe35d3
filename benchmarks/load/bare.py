"""The yardstick: one route of Starlette, served as the API is: ``python -m benchmarks.load.bare FD SIZE``."""

import json
import socket
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from app.embedded.serve import http_config

#: What JSON puts around the text.
_FRAME = len(json.dumps({"text": ""}, separators=(",", ":")))


def application(size: int) -> Starlette:
    """Answers every path with `size` bytes of JSON, rendered for each request."""
    body = {"text": "x" * (size - _FRAME)}

    async def answer(_: Request) -> JSONResponse:
        return JSONResponse(body)

    return Starlette(routes=[Route("/{path:path}", answer)])


def main(descriptor: int, size: int) -> None:
    """Serves until SIGTERM."""
    config = http_config(application(size), "127.0.0.1")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
