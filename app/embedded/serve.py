"""One API process on a socket that its supervisor listens on: ``python -m app.embedded.serve FD``.

The supervisor keeps the socket, so that clients wait instead of being refused while an API process restarts, and
several processes can share it.
"""

import gc
import socket
import sys
import threading
from types import FrameType

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from app import logs
from app.config import Settings, get_settings
from app.embedded.protocol import BoundedProtocol
from app.main import create_app


def http_config(app: ASGIApp, forwarded_allow_ips: str) -> uvicorn.Config:
    """How HTTP is served, whatever the application."""
    return uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        proxy_headers=True,
        forwarded_allow_ips=forwarded_allow_ips,
        server_header=False,
        timeout_graceful_shutdown=5,
        log_config=None,  # the lines are ours: app.logs, app.web.requests
        access_log=False,
    )


class Server(uvicorn.Server):
    """At SIGTERM it stops being ready, serves on for ``drain_s`` so that load balancers turn away, and then ends."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(http_config(app, settings.forwarded_allow_ips))
        self._app, self._drain_s = app, settings.drain_s
        self._draining = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The signal handler; a second signal ends the wait."""
        self._app.state.readiness.stop()
        if self._draining or self._drain_s <= 0:
            super().handle_exit(sig, frame)
            return
        self._draining = True
        timer = threading.Timer(self._drain_s, super().handle_exit, (sig, frame))
        timer.daemon = True
        timer.start()


def main(descriptor: int) -> None:
    """Serves until SIGTERM."""
    settings = get_settings()
    logs.setup(settings)
    app = create_app(settings)
    # Modules, routes and schemas stay for good: looking through them all for garbage stops every answer for 0.2 s.
    gc.collect()
    gc.freeze()
    Server(app, settings).run(sockets=[socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    main(int(sys.argv[1]))
