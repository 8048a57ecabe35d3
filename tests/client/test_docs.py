"""What the client can do is written down."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import modelpress
import pytest
import typer
from modelpress import errors
from modelpress.cli.exits import ExitCode
from modelpress.cli.main import app

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text("utf-8")
ROOT: Any = typer.main.get_command(app)


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands(ROOT))


def test_there_are_commands() -> None:
    assert {"compress", "models list", "jobs follow", "keys revoke"} <= COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name: str) -> None:
    assert f"modelpress {name}" in PAGE


@pytest.mark.parametrize("option", [name for one in COMMANDS["compress"].params for name in one.opts])
def test_every_option_of_compress_is_documented(option: str) -> None:
    assert not option.startswith("-") or f"`{option}`" in PAGE


def test_every_command_says_what_it_does() -> None:
    assert [name for name, command in COMMANDS.items() if not command.help] == []


def test_every_exit_code_is_documented() -> None:
    section = PAGE.partition("### Exit codes")[2].partition("###")[0]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)} == {int(one) for one in ExitCode}


@pytest.mark.parametrize("client", [modelpress.Client, modelpress.AsyncClient])
def test_every_call_is_documented_and_in_both_clients(client: Any) -> None:
    section = PAGE.partition("## The SDK")[2]
    rows = dict(re.findall(r"^\| (`.+`) \| (.+) \|$", section, re.MULTILINE))
    made = client("http://127.0.0.1:1", "key")
    nouns = {name: noun for name, noun in vars(made).items() if not name.startswith("_")}
    documented = {noun: cell for row, cell in rows.items() for noun in re.findall(r"`(\w+)`", row)}
    assert documented.keys() == nouns.keys()
    for name, noun in nouns.items():
        calls = {call for call, _ in inspect.getmembers(noun, callable) if not call.startswith("_")} - {"view"}
        assert set(re.findall(r"`(\w+)[(`]", documented[name])) == calls, name


def test_every_error_is_in_the_tree_and_on_the_page() -> None:
    classes = {name for name, one in vars(errors).items() if inspect.isclass(one) and issubclass(one, Exception)}
    tree = set(re.findall(r"[A-Z]\w+", errors.__doc__ or ""))
    assert classes <= tree
    assert all(f"`{name}`" in PAGE for name in classes)
    assert classes <= set(modelpress.__all__)


def test_the_public_surface_is_what_it_says() -> None:
    modules = {name for name, one in vars(modelpress).items() if inspect.ismodule(one)}
    public = {name for name in vars(modelpress) if not name.startswith("_")} - modules
    assert public == set(modelpress.__all__)
    assert all((inspect.getdoc(getattr(modelpress, name)) or "").strip() for name in modelpress.__all__)
