"""How blocks are checked that do not run: data by what they are, the rest by the name in ``<!-- checked: NAME -->``."""

import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from app.config import Settings
from app.jobs.schemas import JobRequest
from app.recipes import parse_recipe
from tests.support.docs.blocks import ROOT
from tests.support.docs.commands import assignments, check_commands, simple_commands

Check = Callable[[str], None]
PREFIX = "MODELPRESS_"
#: What the client reads, and the files of this repository name, beside the service's settings.
OTHER_VARIABLES = {"MODELPRESS_URL", "MODELPRESS_KEY"}


def check_json(text: str) -> None:
    """JSON; and a recipe, a job's request or an error are ones that the service knows."""
    value: Any = json.loads(text)
    if not isinstance(value, dict):
        return
    if "steps" in value:
        parse_recipe(value)
    elif "recipe" in value and "targets" in value:
        JobRequest.model_validate(value)
        if isinstance(value["recipe"], dict):
            parse_recipe(value["recipe"])
    elif str(value.get("type", "")).startswith("urn:modelpress:error:"):
        assert {"type", "title", "status", "detail", "instance", "code"} <= value.keys()
        assert value["type"].endswith(f":{value['code']}")
        assert f"`{value['code']}`" in (ROOT / "docs/errors.md").read_text()


def check_yaml(text: str) -> None:
    """YAML; files of this repository that it names exist."""
    assert yaml.safe_load(text) is not None
    for path in re.findall(r"\bdeploy/[\w./-]+", text):
        assert (ROOT / path).exists(), path


def check_toml(text: str) -> None:
    """TOML with something in it."""
    assert tomllib.loads(text)


def check_compose(text: str) -> None:
    """An override of docker-compose.yml: its services are there, their secrets are defined, and are settings."""
    base = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    override = yaml.safe_load(text)
    assert override.keys() <= {"services", "secrets", "volumes", "networks"}
    for name, service in override["services"].items():
        assert name in base["services"], name
        secrets = service.get("secrets", [])
        assert set(secrets) <= override["secrets"].keys()
        assert {secret.removeprefix("modelpress_") for secret in secrets} <= Settings.model_fields.keys()


def check_settings(text: str) -> None:
    """Every ``MODELPRESS_...`` is a setting, and takes the value that it is given."""
    given = {name: value for name, value in assignments(text).items() if name.startswith(PREFIX)}
    for name in set(re.findall(rf"{PREFIX}[A-Z0-9_]+", text)) - OTHER_VARIABLES:
        assert name.removeprefix(PREFIX).lower() in Settings.model_fields, f"there is no setting {name}"
    with _environment(given):
        settings = Settings(_env_file=None)  # type: ignore[call-arg]
    assert {name.removeprefix(PREFIX).lower() for name in given.keys() - OTHER_VARIABLES} <= settings.model_fields_set


def check_text(text: str) -> None:
    """Drawings, equations and what programs print; commands belong into a block that runs."""
    assert text.strip()
    assert not re.search(r"^\$ ", text, re.MULTILINE), "a command belongs into a block of its own, of language sh"


def check_lifecycle(text: str) -> None:
    """The rules of a bucket's lifecycle, as JSON within a command of aws."""
    assert list(simple_commands(text))
    rules = json.loads(re.search(r"'(\{.*\})'", text, re.DOTALL)[1])["Rules"]  # type: ignore[index]
    assert all(rule["Status"] == "Enabled" and rule["Filter"]["Prefix"] and rule["ID"] for rule in rules)


#: By language: blocks that are data.
DATA: dict[str, Check] = {
    "json": check_json,
    "yaml": check_yaml,
    "toml": check_toml,
    "text": check_text,
}
#: By the name in ``<!-- checked: NAME -->``.
NAMED: dict[str, Check] = {
    "commands": check_commands,
    "compose": check_compose,
    "lifecycle": check_lifecycle,
}


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
