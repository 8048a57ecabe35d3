"""The command `modelpress`: its groups, and the one place where errors become exit codes."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from modelpress.cli import administration, examples, jobs, nouns
from modelpress.cli.check import check
from modelpress.cli.compress import compress
from modelpress.cli.exits import ExitCode
from modelpress.cli.output import console, show_error
from modelpress.errors import ConfigurationError, ModelpressError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="The service is found by MODELPRESS_URL and MODELPRESS_KEY.",
)
app.command()(compress)
app.command()(check)
GROUPS = {
    "models": nouns.models,
    "datasets": nouns.datasets,
    "uploads": nouns.uploads,
    "jobs": jobs.jobs,
    "artifacts": nouns.artifacts,
    "methods": nouns.methods,
    "targets": nouns.targets,
    "presets": nouns.presets,
    "keys": administration.keys,
    "workspaces": administration.workspaces,
    "webhooks": administration.webhooks,
    "audit": administration.audit,
    "usage": administration.usage,
}
for _name, _group in GROUPS.items():
    app.add_typer(_group, name=_name)
examples.show_in_help(app)


def _version(asked: bool) -> None:
    if asked:
        console().print(f"modelpress {version('modelpress')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Compresses trained models with a Modelpress service."""


def main() -> None:
    """Runs the command; an expected failure is a sentence and an exit code, never a traceback."""
    try:
        app()
    except ConfigurationError as error:
        _fail(error, ExitCode.USAGE)
    except ModelpressError as error:
        _fail(error, ExitCode.SERVICE)
    except OSError as error:
        _fail(error, ExitCode.USAGE)


def _fail(error: ModelpressError | OSError, code: ExitCode) -> None:
    show_error(error)
    sys.exit(code)
