"""Real servers for every test that asks for one: a PostgreSQL and a Valkey for each xdist worker."""

import itertools
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psycopg
import pytest
import redis
from psycopg import sql

from app.embedded.postgres import Postgres
from app.embedded.valkey import Valkey
from app.migrate import upgrade
from tests.support.servers import running_postgres, running_valkey, temporary_folder

TEMPLATE = "migrated"


# How long one example takes says what else runs on the machine.
hypothesis.settings.register_profile("tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("tests")


def pytest_configure() -> None:
    """Let Ctrl-C reach the programs that tests start, also where a shell started the tests in its background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep tests of one ``xdist_group`` in one process.

    pytest-xdist 3.8 appends the group to an attribute of the test that pytest 9.2 no longer reads, so its scheduler
    never learns of it. Without ``--dist loadgroup`` this does nothing.
    """
    if not getattr(config.option, "loadgroup", False):
        return
    for item in items:
        group = item.get_closest_marker("xdist_group")
        if group is not None and "@" not in item.nodeid.rpartition("]")[2]:
            item._id = type(item._id).parse(f"{item.nodeid}@{group.args[0]}")


_numbers = itertools.count()


@pytest.fixture(scope="session")
def servers_folder() -> Iterator[Path]:
    """Where the servers of this test process keep everything; gone when the process ends or is killed."""
    with temporary_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def postgres_server(servers_folder: Path) -> Iterator[Postgres]:
    """A running PostgreSQL."""
    with running_postgres(servers_folder) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres_server: Postgres) -> str:
    """SQLAlchemy URL of an empty database that the whole session shares."""
    return postgres_server.url()


@pytest.fixture(scope="session")
def template_database(postgres_server: Postgres) -> str:
    """Name of a migrated database that others are copied from."""
    _execute(postgres_server, "CREATE DATABASE {}", TEMPLATE)
    upgrade(postgres_server.url(TEMPLATE))
    return TEMPLATE


@pytest.fixture
def empty_database_url(postgres_server: Postgres) -> Iterator[str]:
    """SQLAlchemy URL of a fresh database without any table."""
    name = f"empty_{next(_numbers)}"
    _execute(postgres_server, "CREATE DATABASE {}", name)
    yield postgres_server.url(name)
    _execute(postgres_server, "DROP DATABASE {} WITH (FORCE)", name)


@pytest.fixture
def database_url(postgres_server: Postgres, template_database: str) -> Iterator[str]:
    """SQLAlchemy URL of a fresh database with all tables."""
    name = f"test_{next(_numbers)}"
    _execute(postgres_server, "CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY", name, template_database)
    yield postgres_server.url(name)
    _execute(postgres_server, "DROP DATABASE {} WITH (FORCE)", name)


@pytest.fixture(scope="session")
def valkey_server(servers_folder: Path) -> Iterator[Valkey]:
    """A running Valkey."""
    with running_valkey(servers_folder) as server:
        yield server


@pytest.fixture
def redis_url(valkey_server: Valkey) -> str:
    """redis-py URL (``unix://``) of an empty Valkey."""
    with redis.Redis.from_url(valkey_server.url()) as client:
        client.flushall()
    return valkey_server.url()


@pytest.fixture
def broker_url(valkey_server: Valkey, redis_url: str) -> str:
    """Celery URL (``redis+socket://``) of the same empty Valkey: what ``MODELPRESS_BROKER_URL`` takes."""
    return valkey_server.broker_url()


@pytest.fixture
def free_port() -> int:
    """A TCP port of the loopback interface that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _execute(server: Postgres, statement: str, *names: str) -> None:
    """Runs one statement about databases, from the maintenance database (it cannot be in a transaction)."""
    query = sql.SQL(statement).format(*map(sql.Identifier, names))
    with psycopg.connect(server.url("postgres").replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(query)
