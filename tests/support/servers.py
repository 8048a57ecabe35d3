"""Real PostgreSQL and Valkey for tests, thrown away whatever way the test process ends."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from app.embedded.binaries import find_postgres, find_valkey, reachable_postgres, reachable_valkey
from app.embedded.postgres import Postgres
from app.embedded.process import Program, log_tail, servers_account, stop
from app.embedded.runtime import make_runtime_folder
from app.embedded.valkey import Valkey

PASSWORD = "test-password"
#: Data of tests may be lost with the machine's power: no waiting for disks.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200"}


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


@contextmanager
def running_postgres(folder: Path, options: Mapping[str, str] = FAST) -> Iterator[Postgres]:
    """A PostgreSQL server on a fresh cluster in `folder`."""
    account = servers_account()
    log = folder / "postgres.log"
    server = Postgres(
        programs=reachable_postgres(find_postgres(), account, folder / "programs"),
        data=folder / "postgres",
        sockets=folder,
        password=PASSWORD,
        account=account,
        options=options,
    )
    server.initialize(log)
    with running(server.program(), server.ready, log):
        yield server


@contextmanager
def running_valkey(folder: Path) -> Iterator[Valkey]:
    """A Valkey server with its data in `folder`."""
    account = servers_account()
    server = Valkey(
        executable=reachable_valkey(find_valkey(), account, folder),
        data=folder / "valkey",
        sockets=folder,
        password=PASSWORD,
        account=account,
    )
    server.initialize()
    with running(server.program(), server.ready, folder / "valkey.log"):
        yield server
