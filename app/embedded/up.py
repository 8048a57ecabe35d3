"""``modelpress-server up``: the whole service as one supervised family of processes on one data folder."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

from app.admin import make_first_key
from app.config import Settings
from app.embedded.binaries import find_postgres, find_valkey, reachable_postgres, reachable_valkey
from app.embedded.folder import DataFolder, open_data_folder, read_running
from app.embedded.postgres import Postgres, socket_url
from app.embedded.process import Account, servers_account
from app.embedded.programs import api_program, listen, service_url, shared_figures, worker_program
from app.embedded.supervisor import Supervisor
from app.embedded.valkey import Valkey
from app.migrate import upgrade

#: While no API process is there, a request waits: the supervisor listens. It must not wait long itself.
_PATIENCE_S = 1.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class UpOptions:
    """What ``modelpress-server up`` was asked."""

    host: str
    port: int
    data: Path
    workers: int
    server_user: str


def up(options: UpOptions, say: Say) -> None:
    """Runs the service until SIGTERM or SIGINT.

    Raises:
        EmbeddedError: it cannot start; the message says why.
        StopRequestedError: a signal came while it was starting.
    """
    with _opened(options.data) as folder, listen(options.host, options.port) as listener:
        supervisor = Supervisor(folder.log)
        with shared_figures() as figures, supervisor.signals():
            settings, env = _start_servers(supervisor, folder, options.server_user)
            upgrade(settings.database_url)
            key_file = folder / "admin.key"
            make_first_key(settings, key_file)
            supervisor.start(api_program(listener, {**env, **figures}, drain_s=settings.drain_s))
            supervisor.start(worker_program("cpu", options.workers, env))
            supervisor.start(worker_program("checks", 1, env))
            url = service_url(listener)
            say(f"Modelpress is starting on {url}")
            if key_file.exists():
                say(f"Its first key (role operator) is in {key_file}")
            supervisor.watch(lambda: answers(f"{url}/readyz"), lambda: say(f"Modelpress is ready on {url}"))
            say("Modelpress is stopping")


def running_settings(data: Path) -> Settings:
    """The settings of the embedded service that runs on `data`, as far as its database needs them."""
    secrets, sockets = read_running(data.absolute())
    own = {"database_url": socket_url(sockets, secrets.postgres_password), "key_pepper": secrets.key_pepper}
    given = Settings()
    filled = {name: value for name, value in own.items() if name not in given.model_fields_set}
    return Settings.model_validate({**given.model_dump(), **filled})


def answers(url: str) -> bool:
    """Whether a GET of `url` answers 200 (``/readyz`` does once API, database, queue and a worker are there)."""
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=_PATIENCE_S) as response:
            return bool(response.status == 200)
    except OSError:  # refused, timed out; HTTPError (503) is one too
        return False


@contextmanager
def _opened(path: Path) -> Iterator[DataFolder]:
    folder = open_data_folder(path)
    try:
        yield folder
    finally:
        folder.remove_runtime()
        folder.close()


def _start_servers(supervisor: Supervisor, folder: DataFolder, server_user: str) -> tuple[Settings, dict[str, str]]:
    """Starts the servers that no setting names elsewhere; the settings, and the environment that tells children."""
    given = Settings()
    own: dict[str, Callable[[], str]] = {
        "store_url": lambda: (folder / "store").as_uri(),
        "work_dir": lambda: str(folder / "work"),
        "key_pepper": lambda: folder.secrets.key_pepper,
    }
    servers = {"database_url": _start_postgres, "broker_url": _start_valkey}
    if not servers.keys() <= given.model_fields_set:
        account = servers_account(server_user)
        runtime = folder.make_runtime(account)
        for name, start in servers.items():
            own[name] = partial(start, supervisor, folder, runtime, account)
    filled = {name: value() for name, value in own.items() if name not in given.model_fields_set}
    env = {**os.environ, **{f"MODELPRESS_{name.upper()}": value for name, value in filled.items()}}
    return Settings.model_validate({**given.model_dump(), **filled}), env


def _start_postgres(supervisor: Supervisor, folder: DataFolder, runtime: Path, account: Account | None) -> str:
    server = Postgres(
        programs=reachable_postgres(find_postgres(), account, runtime / "programs"),
        data=folder / "postgres",
        sockets=runtime,
        password=folder.secrets.postgres_password,
        account=account,
        pass_fds=(folder.lock,),
    )
    server.initialize(folder.log("postgres"))
    server.forget_dead_owner()
    supervisor.start_and_wait(server.program(), server.ready)
    return server.url()


def _start_valkey(supervisor: Supervisor, folder: DataFolder, runtime: Path, account: Account | None) -> str:
    server = Valkey(
        executable=reachable_valkey(find_valkey(), account, runtime),
        data=folder / "valkey",
        sockets=runtime,
        password=folder.secrets.valkey_password,
        account=account,
        pass_fds=(folder.lock,),
    )
    server.initialize()
    supervisor.start_and_wait(server.program(), server.ready)
    return server.broker_url()
