"""The embedded Valkey: a real server on a unix socket, append-only, with a password, as our own child."""

from dataclasses import dataclass
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.embedded.process import Account, Program

_SOCKET = "valkey.sock"


@dataclass(frozen=True)
class Valkey:
    """One server: `data` is its folder, `sockets` the short private folder of its unix socket."""

    executable: Path
    data: Path
    sockets: Path
    password: str
    account: Account | None = None
    pass_fds: tuple[int, ...] = ()

    def url(self, database: int = 0) -> str:
        """The URL for redis-py."""
        return f"unix://:{self.password}@{self.sockets / _SOCKET}?db={database}"

    def broker_url(self, database: int = 0) -> str:
        """The URL for Celery and kombu."""
        return f"redis+socket://:{self.password}@{self.sockets / _SOCKET}?virtual_host={database}"

    def initialize(self) -> None:
        """Makes its folder."""
        self.data.mkdir(mode=0o700, exist_ok=True)
        if self.account is not None:
            self.account.owns(self.data)

    def program(self) -> Program:
        """How the server is started; its configuration goes through a pipe, so that ``ps`` shows no password."""
        configuration = {
            "port": "0",
            "unixsocket": str(self.sockets / _SOCKET),
            "unixsocketperm": "700",
            "requirepass": self.password,
            "appendonly": "yes",
            "save": "''",
            "maxmemory-policy": "noeviction",
            "dir": "./",
        }
        return Program(
            name="valkey",
            argv=(str(self.executable), "-"),
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            cwd=self.data,
            account=self.account,
            stdin="".join(f"{name} {value}\n" for name, value in configuration.items()),
            pass_fds=self.pass_fds,
        )

    def ready(self) -> bool:
        """Whether it answers (false while it still reads its append-only file)."""
        try:
            with redis.Redis.from_url(self.url(), socket_timeout=2, retry=Retry(NoBackoff(), 0)) as client:
                return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):  # BusyLoadingError is a ConnectionError
            return False
