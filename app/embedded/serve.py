"""One API process on a socket that its supervisor listens on: ``python -m app.embedded.serve FD``.

The supervisor keeps the socket, so that clients wait instead of being refused while an API process restarts, and
several processes can share it.
"""

import socket
import sys

import uvicorn

from app.config import get_settings


def main(descriptor: int) -> None:
    """Serves until SIGTERM."""
    settings = get_settings()
    config = uvicorn.Config(
        "app.main:create_app",
        factory=True,
        proxy_headers=True,
        forwarded_allow_ips=settings.forwarded_allow_ips,
        server_header=False,
        timeout_graceful_shutdown=5,
        log_level="info",
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    main(int(sys.argv[1]))
