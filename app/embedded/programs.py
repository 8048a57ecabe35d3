"""How the API and the workers are started: the same for the embedded service, a container and a machine."""

import errno
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from app.embedded.process import EmbeddedError, Program

#: Seconds that an API process gets to end its requests, after those in which it drains.
API_GRACE_S: Final = 10.0
#: Where prometheus_client looks for the folder in which API processes add up their figures.
_FIGURES: Final = "PROMETHEUS_MULTIPROC_DIR"
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


@contextmanager
def shared_figures() -> Iterator[dict[str, str]]:
    """Environment that names a fresh folder, in which all API processes keep their figures (`app.instruments`).

    Counters of processes start from zero with their supervisor, as Prometheus expects of a restart.
    """
    with tempfile.TemporaryDirectory(prefix="modelpress-figures-", ignore_cleanup_errors=True) as folder:
        yield {_FIGURES: folder}


def api_program(listener: socket.socket, env: Mapping[str, str], number: int = 0, *, drain_s: float = 0.0) -> Program:
    """One API process that accepts on `listener`, and serves on for `drain_s` when it is asked to end."""
    descriptor = listener.fileno()
    return Program(
        name=f"api-{number}" if number else "api",
        argv=(sys.executable, "-m", "app.embedded.serve", str(descriptor)),
        env={**env, "PYTHONUNBUFFERED": "1"},
        pass_fds=(descriptor,),
        stop_grace_s=drain_s + API_GRACE_S,
    )


def worker_program(queue: str, concurrency: int, env: Mapping[str, str]) -> Program:
    """One Celery worker for one queue, which `worker.__main__` becomes: each queue has slots of its own."""
    return Program(
        name=f"worker-{queue}",
        argv=(sys.executable, "-m", "worker", queue, str(concurrency)),
        env={**env, "PYTHONUNBUFFERED": "1"},
        stop_signal=signal.SIGTERM,
        stop_grace_s=WORKER_GRACE_S,
    )
