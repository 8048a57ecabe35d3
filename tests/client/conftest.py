"""The contract server, clients of it, and the command as a user runs it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from modelpress import Client, Retries

from tests.support.contract import KEY, Service, Serving


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where unfinished uploads are remembered."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "modelpress" / "uploads"


@pytest.fixture
def service(free_port: int) -> Iterator[Service]:
    """A running server."""
    state = Service()
    with Serving(state, free_port):
        yield state


@pytest.fixture
def retries() -> Retries:
    """As in use, only faster."""
    return Retries(base_s=0.01, cap_s=0.05)


@pytest.fixture
def client(service: Service, retries: Retries) -> Iterator[Client]:
    with Client(service.url, KEY, retries=retries) as made:
        yield made


@dataclass
class Ran:
    """A command that ended."""

    code: int
    out: str
    err: str


COMMAND = [sys.executable, "-c", "from modelpress.cli.main import main; main()"]


@pytest.fixture
def environment(service: Service, tmp_path: Path) -> dict[str, str]:
    names = ("PATH", "HOME", "LANG", "VIRTUAL_ENV", "PYTHONPATH")
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return {**kept, "MODELPRESS_URL": service.url, "MODELPRESS_KEY": KEY, "COLUMNS": "160", "NO_COLOR": "1"}


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Callable[..., Ran]:
    """Runs the command as a user would, in a folder of its own."""

    def runs(*args: object, **changes: str) -> Ran:
        done = subprocess.run(
            [*COMMAND, *map(str, args)],
            env={**environment, **changes},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)

    return runs


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command and leaves it running."""
    started: list[subprocess.Popen[str]] = []

    def starts(*args: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, *map(str, args)],
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield starts
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """What a user has: a model and data."""
    made = {"model": "model.pt2", "calibration": "calibration.npz", "evaluation": "evaluation.npz"}
    for role, name in made.items():
        (tmp_path / name).write_bytes(role.encode() * 1000)
    return {role: tmp_path / name for role, name in made.items()}
