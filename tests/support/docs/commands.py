"""Command lines that cannot run in a test: their syntax, and each word of ours against the real command."""

import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer
import yaml
from modelpress.cli.main import app as client_cli

from app.cli import cli as server_cli
from tests.support.docs.blocks import ROOT

#: What ends a command of a line.
OPERATORS = "();|&\n"
Arguments = list[str]


def simple_commands(text: str) -> Iterator[Arguments]:
    """The words of each command of a shell text; comments and line breaks as the shell takes them."""
    syntax = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert syntax.returncode == 0, syntax.stderr
    lexer = shlex.shlex(re.sub(r"(^|\s)#.*", r"\1", text.replace("\\\n", " ")), posix=True, punctuation_chars=OPERATORS)
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    words: Arguments = []
    for word in [*lexer, ";"]:
        if set(word) <= set(OPERATORS):
            if words:
                yield words
            words = []
        else:
            words.append(word)


def assignments(text: str) -> dict[str, str]:
    """``NAME=VALUE`` of a shell text, before commands and after `export`, where the value is plain text."""
    found: dict[str, str] = {}
    for match in re.finditer(r"""(?:^|\s)([A-Z][A-Z0-9_]*)=('[^']*'|"[^"$]*"|[^\s'"$#]+)(?=\s|$)""", text):
        found[match[1]] = match[2].strip("'\"")
    return found


def check_commands(text: str) -> None:
    """Every command of ours in `text` exists, with every option that is given to it; so do targets of make, and
    extras that pip is asked for."""
    known = 0
    for words in simple_commands(text):
        for position, word in enumerate(words):
            check = PROGRAMS.get(Path(word).name)
            if check:
                check(words[position + 1 :])
                known += 1
                break
    assert known, f"none of {', '.join(PROGRAMS)} is in this block: check it in another way"


def _check_cli(app: typer.Typer) -> Callable[[Arguments], None]:
    def check(arguments: Arguments) -> None:
        command: Any = typer.main.get_command(app)
        path, rest = [str(command.name)], list(arguments)
        context = command.context_class(command)
        while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
            name = rest.pop(0)
            assert name in command.commands, f"{' '.join(path)} has no command {name}"
            command, path = command.commands[name], [*path, name]
            context = command.context_class(command, info_name=name, parent=context)
        command.make_parser(context).parse_args(args=rest)

    return check


def _check_make(arguments: Arguments) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = {word for word in arguments if "=" not in word and not word.startswith("-")}
    assert asked <= targets, f"the Makefile has no {asked - targets}"


def _check_pip(arguments: Arguments) -> None:
    folders = {"modelpress-server": ROOT, "modelpress": ROOT / "client"}
    for word in arguments[1:]:
        name, _, extras = word.rstrip("]").partition("[")
        if extras:
            folder = folders.get(name, ROOT / name)
            project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
            missing = set(extras.split(",")) - set(project["optional-dependencies"])
            assert not missing, f"{name} has no extra {missing}"
        elif name.startswith("./"):
            assert (ROOT / name / "pyproject.toml").is_file(), name


def _check_docker(arguments: Arguments) -> None:
    if arguments[:1] != ["compose"]:
        return
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    if "run" in arguments or "exec" in arguments:
        start = next(index for index, word in enumerate(arguments) if word in services)
        _check_cli(server_cli)(arguments[start + 1 :])


def _check_kubectl(arguments: Arguments) -> None:
    """Folders and files of this repository exist; a command behind ``--`` is one of ours."""
    for flag, value in pairwise(arguments):
        if flag in ("-f", "-k") and value.startswith("deploy/"):
            assert (ROOT / value).exists(), value
    if "--" in arguments:
        program, *rest = arguments[arguments.index("--") + 1 :]
        PROGRAMS[program](rest)


PROGRAMS: dict[str, Callable[[Arguments], None]] = {
    "modelpress": _check_cli(client_cli),
    "modelpress-server": _check_cli(server_cli),
    "make": _check_make,
    "pip": _check_pip,
    "docker": _check_docker,
    "kubectl": _check_kubectl,
}
