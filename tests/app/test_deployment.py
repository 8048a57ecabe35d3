"""Documentation and deployment files keep up with the code."""

import re
from pathlib import Path

import pytest
import yaml

from app.config import Settings

ROOT = Path(__file__).parents[2]
OWN_SERVICES = ("api", "migrate", "worker-cpu", "worker-gpu")


@pytest.fixture(scope="module")
def compose() -> dict[str, dict[str, dict[str, object]]]:
    text = (ROOT / "docker-compose.yml").read_text()
    filled = re.sub(r"\$\{(\w+)(?::-([^}]*)|:\?[^}]*)?\}", lambda match: match[2] or match[1].lower(), text)
    return yaml.safe_load(filled)


def test_no_setting_is_documented_that_does_not_exist() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    named = set(re.findall(r"MODELPRESS_([A-Z0-9_]+)", text))
    assert named <= {name.upper() for name in Settings.model_fields}


def test_compose_gives_settings_that_exist(compose: dict[str, dict[str, dict[str, object]]]) -> None:
    for name in OWN_SERVICES:
        environment = compose["services"][name]["environment"]
        assert isinstance(environment, dict)
        ours = {key.removeprefix("MODELPRESS_").lower() for key in environment if key.startswith("MODELPRESS_")}
        assert ours <= set(Settings.model_fields)
        assert {"database_url", "broker_url", "store_url", "key_pepper"} <= ours


def test_compose_passes_on_every_setting() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    fixed = {"database_url", "broker_url", "work_dir"}  # addresses and folders of what the file itself starts
    for name in OWN_SERVICES:
        passed_on = {
            key.removeprefix("MODELPRESS_").lower()
            for key, value in services[name]["environment"].items()
            if value is None or value.startswith(f"${{{key}:")
        }
        here = fixed if name == "api" else fixed | {"signing_key"}  # who does not sign shall not know it
        assert set(Settings.model_fields) - passed_on == here, name


def test_compose_walls(compose: dict[str, dict[str, dict[str, object]]]) -> None:
    for name in OWN_SERVICES:
        service = compose["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["tmpfs"]
    assert compose["services"]["worker-gpu"]["profiles"] == ["gpu"]
    for name in ("postgres", "redis"):
        assert "ports" not in compose["services"][name], "servers are for the other containers only"


def test_compose_migrates_once_before_the_rest(compose: dict[str, dict[str, dict[str, object]]]) -> None:
    for name in ("api", "worker-cpu", "worker-gpu"):
        depends = compose["services"][name]["depends_on"]
        assert isinstance(depends, dict)
        assert depends["migrate"] == {"condition": "service_completed_successfully"}
    assert compose["services"]["migrate"]["restart"] == "no"


def test_compose_never_loses_a_message(compose: dict[str, dict[str, dict[str, object]]]) -> None:
    command = compose["services"]["redis"]["command"]
    assert isinstance(command, list)
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert (options["--appendonly"], options["--maxmemory-policy"]) == ("yes", "noeviction")


def test_every_variable_of_compose_is_in_the_example(compose: dict[str, dict[str, dict[str, object]]]) -> None:
    asked = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    example = set(re.findall(r"^(?:# )?(\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert asked <= example
    passed_on = {name for name, value in compose["x-environment"].items() if value is None}
    assert passed_on <= example | {f"MODELPRESS_{name.upper()}" for name in Settings.model_fields}


def test_images_are_built_from_targets_that_exist(compose: dict[str, dict[str, dict[str, object]]]) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", dockerfile, re.MULTILINE))
    targets = {compose["services"][name]["build"]["target"] for name in OWN_SERVICES}  # type: ignore[index]
    assert targets <= stages
    runtime = dockerfile[dockerfile.index(" AS runtime") :]
    assert "USER modelpress" in runtime
    assert "torch" not in runtime[runtime.index(" AS api") :]
    copied = set(re.findall(r"^COPY (?!--)(.+) \S+$", dockerfile, re.MULTILINE))
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {name for line in copied for name in line.split()} == let_through
