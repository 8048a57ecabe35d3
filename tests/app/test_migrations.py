"""The migrations on a real PostgreSQL."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, Engine, create_engine, inspect

from app.migrate import alembic_config, upgrade
from app.tables import Base

ROOT = Path(__file__).parents[2]


@pytest.fixture
def engine(empty_database_url: str) -> Iterator[Engine]:
    engine = create_engine(empty_database_url)
    yield engine
    engine.dispose()


def _tables(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names()) - {"alembic_version"}


def test_up_down_and_up_again(engine: Engine, empty_database_url: str) -> None:
    config = alembic_config(empty_database_url)
    upgrade(empty_database_url)
    assert _tables(engine) == set(Base.metadata.tables)
    command.downgrade(config, "base")
    assert _tables(engine) == set()
    upgrade(empty_database_url)
    assert _tables(engine) == set(Base.metadata.tables)


def test_migrated_schema_is_that_of_the_tables(engine: Engine, empty_database_url: str) -> None:
    upgrade(empty_database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


def test_check_constraints_match(engine: Engine, empty_database_url: str) -> None:
    """Alembic's comparison leaves check constraints out."""
    upgrade(empty_database_url)
    inspector = inspect(engine)
    for name, table in Base.metadata.tables.items():
        wanted = {str(c.name) for c in table.constraints if isinstance(c, CheckConstraint)}
        assert {c["name"] for c in inspector.get_check_constraints(name)} == wanted


def test_two_processes_that_start_together_migrate_once(engine: Engine, empty_database_url: str) -> None:
    code = f"from app.migrate import upgrade; upgrade({empty_database_url!r})"
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda _: subprocess.run([sys.executable, "-c", code], cwd=ROOT), range(2)))
    assert [run.returncode for run in runs] == [0, 0]
    assert _tables(engine) == set(Base.metadata.tables)


def test_history_has_one_head() -> None:
    assert len(ScriptDirectory.from_config(alembic_config("postgresql://unused")).get_heads()) == 1
