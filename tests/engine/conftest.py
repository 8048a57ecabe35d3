"""Hundreds of exports in one process."""

from collections.abc import Iterator

import pytest

from worker.engine.targets.translations import table_kept


@pytest.fixture(scope="session", autouse=True)
def one_table() -> Iterator[None]:
    """Networks that tests export for themselves, as users do, need not wait for the exporter's table each time."""
    with table_kept():
        yield
