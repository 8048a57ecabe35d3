"""The pages of the reference are what the code says today, and leave nothing out."""

import re
from pathlib import Path

import pytest

from app.config import Settings
from app.recipes import METHODS, TARGETS, Grid
from tools.reference import api, commands, errors, pages

CONTENTS = pages.contents()
COMMANDS = {path: command for name, tree in commands.trees().items() for path, command in commands.leaves(tree, name)}
TEXTS = {path.stem: text for path, text in CONTENTS.items()}


@pytest.mark.parametrize("path", CONTENTS, ids=lambda path: path.name)
def test_the_files_are_up_to_date(path: Path) -> None:
    assert path.read_text("utf-8") == CONTENTS[path], "run `make reference` and commit what it writes"


def test_no_page_is_left_from_before() -> None:
    assert set(pages.FOLDER.glob("*.md")) == CONTENTS.keys()


def test_every_setting_says_what_it_is() -> None:
    rows = re.findall(r"^\| `MODELPRESS_([A-Z0-9_]+)` \| (.+?) \| (.*?) \| (.+) \|$", TEXTS["settings"], re.MULTILINE)
    assert [name.lower() for name, *_ in rows] == list(Settings.model_fields)
    kinds = {name: (kind, default) for name, kind, default, _ in rows}
    assert kinds["KEY_MEMORY_S"] == ("number, at least 0, at most 5", "`3.0`")
    assert kinds["LOG_LEVEL"] == ("`debug`, `info`, `warning`, `error`", "`info`")
    assert kinds["SIGNING_KEY"] == ("secret text", "")


def test_every_method_and_parameter_is_there() -> None:
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", TEXTS["methods"], re.MULTILINE | re.DOTALL))
    assert sections.keys() == METHODS.keys()
    for name, step in METHODS.items():
        shown = set(re.findall(r"^\| `(\w+)` ", sections[name], re.MULTILINE))
        assert shown == step.model_fields.keys() - {"method", "layers"}


def test_every_field_of_a_target_is_there() -> None:
    assert all(name in TEXTS["targets"] for name in TARGETS)
    shown = set(re.findall(r"^\| `(\w+)` ", TEXTS["targets"], re.MULTILINE))
    assert shown == Grid.model_fields.keys() - {"name", "notes"}


def test_every_command_is_there_with_its_help() -> None:
    shown = re.findall(r"^### (.+)\n\n(.+)$", TEXTS["cli"], re.MULTILINE)
    names = {name for name, _ in shown}
    assert names == COMMANDS.keys()
    assert {"modelpress compress", "modelpress jobs follow", "modelpress-server key create"} <= names
    assert not [name for name, about in shown if about.startswith("`")], "a command without help"


def test_every_option_is_there() -> None:
    for name, command in COMMANDS.items():
        options = [one for one in command.params if one.param_type_name == "option" and one.name != "help"]
        section = TEXTS["cli"].partition(f"### {name}\n")[2].partition("\n### ")[0]
        assert all(f"`{option.opts[0]}`" in section for option in options), name


def test_codes_are_found_where_they_are_raised() -> None:
    found = errors.codes()
    assert {"not_found", "limits_not_met"} <= found["app"]
    assert {"out_of_memory"} <= found["worker/runner"]
    assert {"unsupported_operator"} <= found["worker/engine"]
    assert all(f"- `{code}`" in TEXTS["errors"] for codes in found.values() for code in codes)


def test_every_operation_is_there() -> None:
    told = re.findall(r"^\| `([A-Z]+) (/\S*)` \| (.+?) \|", TEXTS["api"], re.MULTILINE)
    paths = api.document()["paths"]
    assert {(verb, path) for verb, path, _ in told} == {
        (verb.upper(), path) for path, operations in paths.items() for verb in operations
    }
    assert len(told) > 40
