"""Completion in a real bash, examples that are commands, and `--json` everywhere."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from modelpress.cli.examples import EXAMPLES

from tests.client.test_docs import COMMANDS
from tests.support.contract import Service

COMPLETE = """
eval "$(_MODELPRESS_COMPLETE=source_bash modelpress)"
COMP_WORDS=({words}) COMP_CWORD={last}
$(complete -p modelpress | sed 's/.*-F \\([^ ]*\\).*/\\1/') modelpress
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def complete(environment: dict[str, str], *words: str) -> list[str]:
    """What bash offers for the last of the words."""
    bin = str(Path(sys.executable).parent)
    quoted = " ".join(map(shlex.quote, ("modelpress", *words)))
    done = subprocess.run(
        ["bash", "--norc", "-c", COMPLETE.format(words=quoted, last=len(words))],
        env={**environment, "PATH": f"{bin}:{environment['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands_options_and_ids(environment: dict[str, str], service: Service) -> None:
    service.items = 4
    assert complete(environment, "web") == ["webhooks"]
    assert {"list", "show", "upload"} <= set(complete(environment, "models", ""))
    assert complete(environment, "models", "show", "--js") == ["--json"]
    assert complete(environment, "models", "show", "mdl_") == ["mdl_0", "mdl_1", "mdl_2"]


def test_a_service_that_does_not_answer_offers_nothing(environment: dict[str, str]) -> None:
    assert complete({**environment, "MODELPRESS_URL": "http://127.0.0.1:1"}, "models", "show", "mdl_") == []


def test_every_command_has_an_example() -> None:
    assert EXAMPLES.keys() == COMMANDS.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_is_a_command_with_its_options(name: str) -> None:
    command: Any = COMMANDS[name]
    assert EXAMPLES[name].startswith(name)
    known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
    words = shlex.split(EXAMPLES[name].partition(" > ")[0].removeprefix(name))
    assert {word for word in words if word.startswith("-")} <= known
    needed = [one for one in command.params if one.param_type_name == "argument" and one.required]
    assert len([word for word in words if not word.startswith("-")]) >= len(needed)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_answer_json_and_shows_its_example(name: str) -> None:
    assert any("--json" in one.opts for one in COMMANDS[name].params)
    assert COMMANDS[name].epilog == f"Example: modelpress {EXAMPLES[name]}"
