"""How the API and the workers are started: the same for the embedded service, a container and a machine."""

import errno
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Final

from app.embedded.process import EmbeddedError, Program

#: Seconds that a worker gets to hand back what it is doing.
WORKER_GRACE_S: Final = 15.0


class PortInUseError(EmbeddedError):
    """Someone else listens on the port."""

    exit_code = 4


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket.

    Raises:
        PortInUseError: someone else listens there.
        EmbeddedError: the address is none of this machine's, or the port is not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise EmbeddedError(f"cannot listen on {host}: {error.strerror}") from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(
                f"port {port} of {host} is in use by another program; choose another with --port"
            ) from error
        raise EmbeddedError(f"cannot listen on port {port} of {host}: {error.strerror}") from error
    return listener


def service_url(listener: socket.socket) -> str:
    """Where a client on this machine finds a service that listens on `listener`."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def api_program(listener: socket.socket, env: Mapping[str, str], number: int = 0) -> Program:
    """One API process that accepts on `listener`."""
    descriptor = listener.fileno()
    return Program(
        name=f"api-{number}" if number else "api",
        argv=(sys.executable, "-m", "app.embedded.serve", str(descriptor)),
        env={**env, "PYTHONUNBUFFERED": "1"},
        pass_fds=(descriptor,),
    )


def worker_program(queue: str, concurrency: int, env: Mapping[str, str]) -> Program:
    """One Celery worker for one queue: each queue has slots of its own."""
    options = ("-Q", queue, "-c", str(concurrency), "-n", f"{queue}@%h", "--without-mingle", "--without-gossip")
    return Program(
        name=f"worker-{queue}",
        argv=(sys.executable, "-m", "celery", "-A", "worker.main", "worker", "--loglevel", "INFO", *options),
        env={**env, "PYTHONUNBUFFERED": "1"},
        stop_signal=signal.SIGTERM,
        stop_grace_s=WORKER_GRACE_S,
    )
