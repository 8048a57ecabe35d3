"""One service for all pages; what they take as given is made once."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.demo import free_port
from tests.support.service import Service, serving


@pytest.fixture(scope="package")
def running_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The embedded service, with a key that signs artifacts, made as docs/operations.md says."""
    make_key = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout"]
    key = subprocess.run(make_key, capture_output=True, text=True, check=True).stdout
    prefix = ("env", f"MODELPRESS_SIGNING_KEY={key}")
    with serving(tmp_path_factory.mktemp("service") / "data", free_port(), prefix) as service:
        yield service


@pytest.fixture(scope="package")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("made")
