"""A proxy on the loopback interface that breaks connections after so many bytes, as bad networks do."""

import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

PIECE = 1 << 15


@dataclass
class Cutting:
    """`cuts`: after how many bytes of the client each next connection breaks; then they hold."""

    port: int
    cuts: deque[int] = field(default_factory=deque)
    sent: int = 0
    broken: int = 0


@contextmanager
def cutting(port: int) -> Iterator[Cutting]:
    """Forwards to `port`."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        state = Cutting(server.getsockname()[1])
        threading.Thread(target=_serve, args=(server, port, state), daemon=True).start()
        try:
            yield state
        finally:
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)


def _serve(server: socket.socket, port: int, state: Cutting) -> None:
    with suppress(OSError):
        while True:
            client, _ = server.accept()
            behind = socket.create_connection(("127.0.0.1", port))
            threading.Thread(target=_answers, args=(behind, client), daemon=True).start()
            threading.Thread(target=_requests, args=(client, behind, state), daemon=True).start()


def _requests(client: socket.socket, behind: socket.socket, state: Cutting) -> None:
    left = state.cuts.popleft() if state.cuts else None
    with client, behind, suppress(OSError):
        while data := client.recv(PIECE if left is None else min(PIECE, left)):
            behind.sendall(data)
            state.sent += len(data)
            if left is not None:
                left -= len(data)
                if left <= 0:
                    state.broken += 1
                    break
        for one in (client, behind):
            one.shutdown(socket.SHUT_RDWR)


def _answers(behind: socket.socket, client: socket.socket) -> None:
    with suppress(OSError):
        while data := behind.recv(PIECE):
            client.sendall(data)
        client.shutdown(socket.SHUT_WR)
