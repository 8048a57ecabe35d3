"""Real PostgreSQL and Valkey for tests, thrown away whatever way the test process ends."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from app.config import Settings
from app.embedded.binaries import find_postgres, find_valkey, reachable_postgres, reachable_valkey
from app.embedded.postgres import Postgres
from app.embedded.process import Program, log_tail, servers_account, stop
from app.embedded.runtime import make_runtime_folder
from app.embedded.valkey import Valkey

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "test-password"
#: Data of tests may be lost with the machine's power: no waiting for disks.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200"}


def environment(settings: Settings) -> dict[str, str]:
    """The environment of a service process with these settings, and nothing of this one's own settings."""
    own = {f"MODELPRESS_{name.upper()}": _as_text(value) for name, value in settings}
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **own}


def _as_text(value: Any) -> str:
    """A setting as its variable holds it."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return json.dumps(value, default=str) if isinstance(value, list | tuple | dict) else str(value)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A short folder that is gone afterwards, even when this process is killed (a shell waits for its end)."""
    folder = make_runtime_folder(servers_account())
    reader, writer = os.pipe()
    script = f"read -r _; sleep 1; rm -rf {folder}"
    janitor = subprocess.Popen(["/bin/sh", "-c", script], stdin=reader, start_new_session=True)
    os.close(reader)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(writer)
        janitor.kill()
        janitor.wait()


@contextmanager
def running(program: Program, ready: Callable[[], bool], log: Path) -> Iterator[None]:
    """Runs `program` until the block ends."""
    process = program.spawn(log)
    try:
        deadline = time.monotonic() + 30
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{program.name} did not start:\n{log_tail(log, 20)}")
            time.sleep(0.02)
        yield
    finally:
        stop(process, program)


def new_postgres(folder: Path, options: Mapping[str, str] = FAST) -> Postgres:
    """A PostgreSQL server with a fresh cluster in `folder`, not started yet."""
    account = servers_account()
    server = Postgres(
        programs=reachable_postgres(find_postgres(), account, folder / "programs"),
        data=folder / "postgres",
        sockets=folder,
        password=PASSWORD,
        account=account,
        options=options,
    )
    server.initialize(folder / "postgres.log")
    return server


@contextmanager
def running_postgres(folder: Path, options: Mapping[str, str] = FAST) -> Iterator[Postgres]:
    """A PostgreSQL server on a fresh cluster in `folder`."""
    server = new_postgres(folder, options)
    with running(server.program(), server.ready, folder / "postgres.log"):
        yield server


def new_valkey(folder: Path) -> Valkey:
    """A Valkey server with its data in `folder`, not started yet."""
    account = servers_account()
    server = Valkey(
        executable=reachable_valkey(find_valkey(), account, folder),
        data=folder / "valkey",
        sockets=folder,
        password=PASSWORD,
        account=account,
    )
    server.initialize()
    return server


@contextmanager
def running_valkey(folder: Path) -> Iterator[Valkey]:
    """A Valkey server with its data in `folder`."""
    server = new_valkey(folder)
    with running(server.program(), server.ready, folder / "valkey.log"):
        yield server
