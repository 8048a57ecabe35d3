"""The embedded servers: reachable with their password only, on unix sockets only, dead with their parent."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from kombu import Connection
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import create_engine, text

from app.embedded.postgres import Postgres
from app.embedded.process import Account, EmbeddedError, Program, stop
from app.embedded.valkey import Valkey
from tests.support.servers import running_postgres, running_valkey, temporary_folder


def test_postgres_answers_on_its_url(postgres_url: str) -> None:
    engine = create_engine(postgres_url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT current_user")).scalar_one() == "modelpress"
        assert connection.execute(text("SHOW listen_addresses")).scalar_one() == ""
    engine.dispose()


def test_postgres_refuses_a_wrong_password(postgres_server: Postgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(host=str(postgres_server.sockets), user="modelpress", password="x", dbname="modelpress")


def test_each_test_has_a_database_of_its_own(database_url: str, empty_database_url: str) -> None:
    counts = []
    for url in (database_url, empty_database_url):
        engine = create_engine(url)
        with engine.connect() as connection:
            query = text("SELECT count(*) FROM information_schema.tables WHERE table_name = 'workspaces'")
            counts.append(connection.execute(query).scalar_one())
        engine.dispose()
    assert counts == [1, 0]


def test_valkey_takes_messages_of_celery(broker_url: str) -> None:
    with Connection(broker_url) as connection:
        queue = connection.SimpleQueue("test")
        queue.put({"a": 1})
        assert queue.get(timeout=5).payload == {"a": 1}
        queue.close()


def test_valkey_refuses_without_password(valkey_server: Valkey) -> None:
    socket = str(valkey_server.sockets / "valkey.sock")
    with (
        redis.Redis(unix_socket_path=socket, retry=Retry(NoBackoff(), 0)) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


def test_valkey_never_evicts(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}


def test_passwords_are_in_no_command_line(postgres_server: Postgres, valkey_server: Valkey) -> None:
    lines = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
    assert any("valkey" in line for line in lines)
    assert not [line for line in lines if postgres_server.password in line]


def test_stored_data_survives_kill_9() -> None:
    with temporary_folder() as folder:
        with running_postgres(folder, {}) as postgres, running_valkey(folder) as valkey:
            with psycopg.connect(postgres.url().replace("+psycopg", "")) as connection:
                connection.execute("CREATE TABLE kept (x int)")
            with redis.Redis.from_url(valkey.url()) as client:
                client.set("kept", "1")
            for child in psutil.Process().children():
                if child.cwd().startswith(str(folder)):
                    child.kill()
        with running_postgres(folder, {}) as postgres, running_valkey(folder) as valkey:
            with psycopg.connect(postgres.url().replace("+psycopg", "")) as connection:
                assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)
            with redis.Redis.from_url(valkey.url()) as client:
                assert client.get("kept") == b"1"


def test_servers_and_their_folder_go_when_the_parent_is_killed() -> None:
    script = textwrap.dedent("""
        import time
        from tests.support.servers import running_postgres, running_valkey, temporary_folder
        with temporary_folder() as folder, running_postgres(folder), running_valkey(folder):
            print(folder, flush=True)
            time.sleep(60)
    """)
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]
    )
    assert parent.stdout is not None
    folder = Path(parent.stdout.readline().strip())
    family = psutil.Process(parent.pid).children(recursive=True)
    assert {"postgres", "valkey-server"} <= {child.name() for child in family}
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    deadline = time.monotonic() + 5
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not folder.exists()


def test_a_cluster_of_another_version_is_refused(tmp_path: Path, postgres_server: Postgres) -> None:
    data = tmp_path / "postgres"
    data.mkdir()
    (data / "PG_VERSION").write_text("9\n")
    server = Postgres(postgres_server.programs, data, tmp_path, "x")
    with pytest.raises(EmbeddedError, match="written by PostgreSQL 9"):
        server.initialize(tmp_path / "log")


def test_a_closed_folder_is_out_of_reach(tmp_path: Path) -> None:
    private = tmp_path / "private"
    (private / "inner").mkdir(parents=True)
    private.chmod(0o700)
    stranger = Account(uid=os.getuid() + 4321, gid=os.getgid() + 4321)
    assert not stranger.can_reach(private / "inner")
    assert Account(os.getuid(), os.getgid()).can_reach(private)


def test_a_child_that_ignores_its_signal_is_ended_by_force(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    program = Program("stubborn", (sys.executable, "-c", code), {}, stop_grace_s=0.3)
    log = tmp_path / "log"
    process = program.spawn(log)
    while "up" not in log.read_text():
        time.sleep(0.02)
    assert stop(process, program) == -signal.SIGKILL
