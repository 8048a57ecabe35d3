"""Both commands, from the trees of their command lines."""

from collections.abc import Iterator
from typing import Any

import typer
from modelpress.cli.main import app as client

from app.cli import cli as server
from tools.reference.markdown import code, first_sentence, table
from tools.reference.markdown import page as _page
from tools.reference.types import type_name

ABOUT = "`modelpress` is the client, `modelpress-server` the service. What is written here is what `--help` says."


def page() -> str:
    """docs/reference/cli.md."""
    parts = [ABOUT]
    for name, tree in trees().items():
        parts.append(f"## {name}\n\n{first_sentence(tree.help)}")
        parts += [_command(path, command) for path, command in leaves(tree, name)]
    return _page("Commands", *parts)


def trees() -> dict[str, Any]:
    """Both commands, as trees of commands."""
    return {name: typer.main.get_command(app) for name, app in (("modelpress", client), ("modelpress-server", server))}


def leaves(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every command that does something, with its path."""
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from leaves(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _command(path: str, command: Any) -> str:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and one.name != "help"]
    usage = " ".join([path, *(one.name.upper() for one in arguments), *(["[OPTIONS]"] if options else [])])
    rows = [[code(*one.opts, *one.secondary_opts), _kind(one), _default(one), one.help or ""] for one in options]
    parts = [f"### {path}", first_sentence(command.help), f"`{usage}`"]
    if rows:
        parts.append(table(["option", "takes", "default", "what"], rows))
    return "\n\n".join(parts)


def _kind(option: Any) -> str:
    if option.is_flag:
        return ""
    words = type_name(option.type_descriptor.annotation).removeprefix("list of ")
    return f"{words}; may be repeated" if option.multiple else words


def _default(option: Any) -> str:
    if option.required:
        return "required"
    value = option.default
    if value is None or callable(value) or value in ((), [], False):
        return ""
    values = value if isinstance(value, list | tuple) else [value]
    return code(*(getattr(one, "value", one) for one in values))
