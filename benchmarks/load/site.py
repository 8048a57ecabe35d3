"""One API process on real servers, and the same server with nothing but a bare application."""

import http.client
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from app.admin import KeyRequest, create_key, create_workspace
from app.config import Settings
from app.embedded.process import Program, log_tail, stop
from app.embedded.programs import api_program, listen, service_url
from app.migrate import upgrade
from benchmarks.load.machine import cores, pin
from tests.support.servers import environment, running_postgres, running_valkey, temporary_folder

PEPPER = "pepper-of-the-load-test"
#: As a deployment has them: commits wait for the disk.
POSTGRES = {"max_connections": "100"}
#: The bucket is asked for each request and never empty.
PLENTY = "1000000"


@dataclass(frozen=True)
class Site:
    """A running API.

    Attributes:
        url: of the API.
        settings: with which this process reaches the same database and broker.
        workspace_id: whose jobs `key` sees.
        key: of a member.
        folder: for files of the measurement.
        pid: of the API process.
        log: of the API process.
    """

    url: str
    settings: Settings
    workspace_id: str
    key: str
    folder: Path
    pid: int
    log: Path


@contextmanager
def open_site() -> Iterator[Site]:
    """An API on fresh servers, until the block ends."""
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        postgres = stack.enter_context(running_postgres(folder, POSTGRES))
        valkey = stack.enter_context(running_valkey(folder))
        upgrade(postgres.url())
        settings = Settings(
            _env_file=None,
            database_url=postgres.url(),
            broker_url=valkey.broker_url(),
            store_url=f"file://{folder}/store",
            key_pepper=SecretStr(PEPPER),
            rate_limit_per_s=float(PLENTY),
            rate_limit_burst=int(PLENTY),
            # Jobs are measured that nobody runs, and so nobody renews their leases.
            lease_s=3600.0,
        )
        workspace_id = create_workspace(settings, "load")
        key = create_key(settings, KeyRequest("load", "member", "load"))
        listener = stack.enter_context(listen("127.0.0.1", 0))
        program = api_program(listener, environment(settings))
        log = folder / "api.log"
        pid = stack.enter_context(_started(program, service_url(listener), log))
        yield Site(service_url(listener), settings, workspace_id, key, folder, pid, log)


@contextmanager
def bare_server(settings: Settings, folder: Path, kind: str, size: int) -> Iterator[str]:
    """URL of a bare application of this kind (`benchmarks.load.bare`) that answers `size` bytes of JSON."""
    with listen("127.0.0.1", 0) as listener:
        descriptor = listener.fileno()
        program = Program(
            name="bare",
            argv=(sys.executable, "-m", "benchmarks.load.bare", str(descriptor), kind, str(size)),
            env=environment(settings),
            pass_fds=(descriptor,),
        )
        with _started(program, service_url(listener), folder / f"{kind}.log"):
            yield service_url(listener)


@contextmanager
def _started(program: Program, url: str, log: Path) -> Iterator[int]:
    """Runs a server on the servers' core until the block ends; its process id."""
    process = program.spawn(log)
    try:
        pin(process.pid, cores()[0])
        deadline = time.monotonic() + 60
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{program.name} did not start:\n{log_tail(log, 20)}")
            time.sleep(0.1)
        yield process.pid
    finally:
        stop(process, program)


def _answers(url: str) -> bool:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=1)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
