"""A real HTTP server on the loopback interface, for whatever a test has to answer."""

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import uvicorn


class Handler(BaseHTTPRequestHandler):
    """Override ``do_GET`` or ``do_POST``; it logs nothing."""

    def body(self) -> bytes:
        """What was sent."""
        return self.rfile.read(int(self.headers["Content-Length"]))

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def answering(handler: type[Handler], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Answers on a port of its own, which it gives, until the block ends."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def served(config: uvicorn.Config) -> Iterator[tuple[str, int]]:
    """An application on a real socket, lifespan and all, in a thread until the block ends; its address."""
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()
    finally:
        server.should_exit = True
        thread.join()
