"""A deployment of real processes for tests of the worker."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deployment import Deployment, deployment


@pytest.fixture
def service(database_url: str, broker_url: str, tmp_path: Path) -> Iterator[Deployment]:
    with deployment(database_url, broker_url, tmp_path) as made:
        yield made
