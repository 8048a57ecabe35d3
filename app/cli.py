"""The command ``modelpress-server``: starts the service or parts of it, and administers it."""

import logging
import os
import sys
import time
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from app import logs
from app.admin import AdminError, KeyRequest, create_key, create_workspace
from app.config import Settings, get_settings
from app.embedded.process import EmbeddedError
from app.embedded.programs import api_program, listen, service_url, shared_figures, worker_program
from app.embedded.supervisor import StopRequestedError, Supervisor
from app.embedded.up import UpOptions, answers, running_settings, up
from app.migrate import MigrationError, upgrade

_STEADY_WORKER_S = 10.0

log = logging.getLogger(__name__)

_ABOUT = "Starts the service or parts of it, and administers it."
cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=_ABOUT)


class Role(StrEnum):
    """What a key may do: each may do what the ones before it may (`app.tables.accounts.ROLES`)."""

    READER = "reader"
    MEMBER = "member"
    ADMIN = "admin"
    OPERATOR = "operator"


class QueueName(StrEnum):
    """What a worker can serve."""

    CPU = "cpu"
    GPU = "gpu"
    CHECKS = "checks"


Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")]
RunningData = Annotated[
    Path | None, typer.Option("--data", help="Data folder of a running embedded service; else: the settings.")
]
Port = Annotated[int, typer.Option(min=0, max=65535, help="TCP port; 0 for any free one.")]


@cli.command("up")
def up_command(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    data: Annotated[Path, typer.Option(help="Folder that keeps everything.")] = Path("modelpress-data"),
    workers: Annotated[int, typer.Option(min=1, help="Jobs that run at once.")] = 1,
    server_user: Annotated[str, typer.Option(help="When started as root: who the servers run as.")] = "nobody",
) -> None:
    """Run the whole service: PostgreSQL, Valkey, API and workers, with all data in one folder."""
    _logging()
    up(UpOptions(host, port, data, workers, server_user), _tell)


@cli.command()
def api(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    workers: Annotated[int, typer.Option(min=1, help="API processes.")] = 1,
) -> None:
    """Run API processes alone; database, queue and store come from settings."""
    settings = _logging()
    supervisor = Supervisor()
    with listen(host, port) as listener, shared_figures() as figures, supervisor.signals():
        for number in range(workers):
            supervisor.start(api_program(listener, {**os.environ, **figures}, number + 1, drain_s=settings.drain_s))
        url = service_url(listener)
        supervisor.watch(lambda: answers(f"{url}/healthz"), lambda: _tell(f"The API answers on {url}"))


@cli.command()
def worker(
    queue: Annotated[list[QueueName], typer.Option(help="Queue to serve; may be repeated.")] = [  # noqa: B006
        QueueName.CPU,
        QueueName.CHECKS,
    ],
    concurrency: Annotated[int, typer.Option(min=1, help="Jobs that run at once on each of cpu and gpu.")] = 1,
) -> None:
    """Run workers alone, one Celery process for each queue (checks of uploads have one slot of their own)."""
    _logging()
    supervisor = Supervisor()
    with supervisor.signals():
        for name in dict.fromkeys(queue):
            slots = 1 if name is QueueName.CHECKS else concurrency
            supervisor.start(worker_program(name.value, slots, os.environ))
        steady = time.monotonic() + _STEADY_WORKER_S
        supervisor.watch(lambda: time.monotonic() > steady, lambda: _tell("The workers are running"))


@cli.command()
def migrate() -> None:
    """Create or upgrade the tables of the database in the settings."""
    upgrade(get_settings().database_url)
    _say("The database is up to date")


workspace = typer.Typer(no_args_is_help=True, help="Administer workspaces.")
key = typer.Typer(no_args_is_help=True, help="Administer API keys.")
cli.add_typer(workspace, name="workspace")
cli.add_typer(key, name="key")


@workspace.command("create")
def workspace_create(
    name: Annotated[str, typer.Argument(help="Name of the new workspace.")], data: RunningData = None
) -> None:
    """Make a workspace and print its id."""
    _say(create_workspace(_settings(data), name))


@key.command("create")
def key_create(
    workspace: Annotated[str, typer.Option(help="Name of the workspace that the key opens.")],
    role: Annotated[Role, typer.Option(help="What the key may do.")],
    name: Annotated[str, typer.Option(help="A note of what it is for.")] = "made by modelpress-server",
    expires: Annotated[datetime | None, typer.Option(help="Last moment of validity, UTC.")] = None,
    data: RunningData = None,
) -> None:
    """Make an API key and print it. It is shown this once: only a hash is kept."""
    expires_at = expires.replace(tzinfo=UTC) if expires else None
    _say(create_key(_settings(data), KeyRequest(workspace, role.value, name, expires_at)))


def main() -> None:
    """Entry point: turns expected errors into one sentence and an exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        cli()
    except EmbeddedError as error:
        _fail(str(error), error.exit_code)
    except (MigrationError, AdminError) as error:
        _fail(str(error), 1)
    except StopRequestedError:
        sys.exit(0)


def _settings(data: Path | None) -> Settings:
    return get_settings() if data is None else running_settings(data)


def _logging() -> Settings:
    """Logs as the settings say, for the commands that keep running."""
    settings = get_settings()
    logs.setup(settings)
    return settings


def _tell(text: str) -> None:
    """News of a command that keeps running: for people, or a line of the log where machines read it."""
    if get_settings().log_format == "json":
        log.info(text)
    else:
        _say(text)


def _say(text: str) -> None:
    typer.echo(text)
    sys.stdout.flush()


def _fail(text: str, status: int) -> None:
    typer.echo(f"modelpress-server: {text}", err=True)
    sys.exit(status)
