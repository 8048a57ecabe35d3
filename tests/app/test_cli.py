"""``modelpress-server``: every promise of the embedded mode, on real processes."""

import io
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from app.cli import cli
from app.embedded.process import Account
from tests.support.service import (
    ROOT,
    Service,
    alive,
    clean_environment,
    command,
    family,
    serving,
    wait_until,
)

pytestmark = pytest.mark.xdist_group("embedded-service")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("embedded") / "data"


@pytest.fixture(scope="module")
def service(data: Path) -> Iterator[Service]:
    """One service for all tests that leave it running."""
    with serving(data, _free_port()) as running:
        yield running


def test_first_start_writes_a_private_key_and_does_not_print_it(service: Service) -> None:
    key_file = service.data / "admin.key"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    said = service.output.read_text()
    assert service.url in said
    assert str(key_file) in said
    assert service.key() not in said
    for log in (service.data / "logs").iterdir():
        assert service.key() not in log.read_text()


def test_the_first_key_is_an_operators(service: Service) -> None:
    status, made = service.post("/v1/workspaces", {"name": "made-by-the-first-key"})
    assert status == 201, made


def test_no_password_is_on_a_command_line(service: Service) -> None:
    secrets = re.findall(r"[0-9a-f]{48}", (service.data / "secrets.json").read_text())
    assert len(secrets) == 3
    for process in family(service.process.pid):
        line = " ".join(process.cmdline())
        assert not [secret for secret in secrets if secret in line], line


def test_nothing_but_the_api_listens_on_the_network(service: Service) -> None:
    listening = {
        connection.laddr.port
        for process in family(service.process.pid)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {int(service.url.rsplit(":", 1)[1])}


def test_a_second_start_on_the_same_folder_is_refused(service: Service) -> None:
    refused = _run("up", "--data", str(service.data), "--port", str(_free_port()))
    assert refused.returncode == 3
    assert f"process {service.process.pid}) is running on {service.data}" in refused.stderr
    assert service.ready()


def test_a_port_in_use_is_refused(service: Service, tmp_path: Path) -> None:
    port = service.url.rsplit(":", 1)[1]
    refused = _run("up", "--data", str(tmp_path / "other"), "--port", port)
    assert refused.returncode == 4
    assert f"port {port} of 127.0.0.1 is in use" in refused.stderr


def test_a_key_made_on_the_running_service_opens_it(service: Service) -> None:
    options = ("--data", str(service.data))
    assert _run("workspace", "create", "by-command", *options).stdout.startswith("wsp_")
    again = _run("workspace", "create", "by-command", *options)
    assert (again.returncode, again.stderr) == (1, "modelpress-server: there is a workspace 'by-command' already\n")
    made = _run("key", "create", "--workspace", "by-command", "--role", "member", "--name", "ci", *options)
    assert made.stdout.startswith("mpk_"), made.stderr
    status, answer = service.get("/v1/models")
    assert status == 200, answer


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--workspace", "absent", "--role", "member"), "no workspace 'absent'"),
        (("--workspace", "default", "--role", "member", "--expires", "2020-01-01"), "is past"),
        (("--workspace", "default", "--role", "emperor"), "emperor"),
    ],
)
def test_a_key_that_cannot_be_made(service: Service, arguments: tuple[str, ...], complaint: str) -> None:
    refused = _run("key", "create", "--data", str(service.data), *arguments)
    assert refused.returncode in {1, 2}
    assert complaint in refused.stderr


@pytest.mark.parametrize(
    "victims",
    [
        [("bin/postgres",)],
        [("valkey-server",)],
        [("app.embedded.serve",)],
        [("worker.main", "cpu@"), ("worker.main", "checks@")],
    ],
    ids=["postgres", "valkey", "api", "workers"],
)
def test_children_are_started_again_after_kill_9(service: Service, victims: list[tuple[str, ...]]) -> None:
    name = f"kept-{victims[0][0].replace('/', '-')}"
    assert service.post("/v1/workspaces", {"name": name})[0] == 201
    killed = [service.child(*words) for words in victims]
    for victim in killed:
        assert victim is not None
        victim.kill()
    wait_until(lambda: all(_replaced(service, words, killed) for words in victims), 20, "the restart")
    wait_until(service.ready, 40, "readiness after the restart")
    assert service.post("/v1/workspaces", {"name": name})[0] == 409, "what was stored must still be there"
    _check_that_work_is_done(service, name)


def test_sigterm_ends_everything_and_kill_9_leaves_nothing(data: Path, service: Service) -> None:
    members = family(service.process.pid)
    runtime = Path((data / "runtime").read_text().strip())
    service.process.terminate()
    assert service.process.wait(30) == 0
    assert alive(members) == []
    assert not runtime.exists()
    assert "Modelpress is stopping" in service.output.read_text()
    with serving(data, _free_port()) as again:
        assert again.get("/v1/models")[0] == 200
        _check_kill_9_leaves_nothing(again)


def _check_kill_9_leaves_nothing(running: Service) -> None:
    members = family(running.process.pid)
    assert len(members) >= 8, "servers, API, two workers and their pools"
    running.process.kill()
    running.process.wait()
    wait_until(lambda: alive(members) == [], 10, "the end of the family")
    port = int(running.url.rsplit(":", 1)[1])
    with serving(running.data, port) as again:
        assert again.get("/v1/models")[0] == 200


def _check_that_work_is_done(service: Service, name: str) -> None:
    """API, store, database, queue, worker and a job's process in one: the check of an upload."""
    columns = io.BytesIO()
    np.savez(columns, input=np.zeros((8, 4), np.float32))
    status, dataset = service.upload_dataset(name, columns.getvalue())
    assert status == 201, dataset
    path = f"/v1/datasets/{dataset['id']}"
    wait_until(lambda: service.get(path)[1]["state"] != "checking", 60, "the check")
    assert service.get(path)[1]["state"] == "ready", service.get(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="all other tests run as an ordinary user then")
def test_it_runs_as_an_ordinary_user_and_ends_with_ctrl_c() -> None:
    user, reach = Account(65534, 65534), []
    python_is_open = user.can_reach(Path(sys.executable))
    if not python_is_open:
        # Python lies in a closed folder (root's home, say): this lets the otherwise ordinary process read it. Its
        # jobs cannot keep it, so they cannot run.
        reach = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *reach]
    home = Path(f"/tmp/mp-user-{os.getpid()}")  # the folders of pytest are closed to others
    home.mkdir(mode=0o700)
    user.owns(home)
    try:
        with serving(home / "data", _free_port(), prefix=become) as running:
            members = family(running.process.pid)
            assert {process.uids().real for process in members} == {65534}
            assert running.get("/v1/models")[0] == 200
            if python_is_open:
                _check_that_work_is_done(running, "by-an-ordinary-user")
            running.process.send_signal(signal.SIGINT)
            assert running.process.wait(30) == 0
            assert alive(members) == []
    finally:
        shutil.rmtree(home)


def test_parts_run_alone_on_servers_of_settings(database_url: str, broker_url: str, tmp_path: Path) -> None:
    env = {
        "MODELPRESS_DATABASE_URL": database_url,
        "MODELPRESS_BROKER_URL": broker_url,
        "MODELPRESS_STORE_URL": (tmp_path / "store").as_uri(),
        "MODELPRESS_WORK_DIR": str(tmp_path / "work"),
        "MODELPRESS_KEY_PEPPER": "pepper",
    }
    assert _run("migrate", env=env).stdout == "The database is up to date\n"
    assert _run("workspace", "create", "default", env=env).returncode == 0
    key = _run("key", "create", "--workspace", "default", "--role", "reader", env=env).stdout.strip()
    (tmp_path / "admin.key").write_text(key)
    port = _free_port()
    full = {**clean_environment(), **env, "PYTHONPATH": str(ROOT)}
    with (tmp_path / "output").open("w") as output:
        started = [
            subprocess.Popen(command(*arguments), env=full, cwd=tmp_path, stdout=output, stderr=output)
            for arguments in (("api", "--port", str(port), "--workers", "2"), ("worker",))
        ]
    try:
        running = Service(started[0], tmp_path, f"http://127.0.0.1:{port}", tmp_path / "output")  # type: ignore[arg-type]
        wait_until(running.ready, 60, f"readiness ({(tmp_path / 'output').read_text()})")
        assert running.get("/v1/models")[0] == 200
        members = [member for part in started for member in family(part.pid)]
    finally:
        for part in started:
            part.terminate()
        assert [part.wait(40) for part in started] == [0, 0]
    assert alive(members) == []


def test_a_child_that_cannot_start_is_named_with_its_log(tmp_path: Path) -> None:
    data = tmp_path / "data"
    refused = _run(
        "up", "--data", str(data), "--port", str(_free_port()), env={"MODELPRESS_STORE_URL": "ftp://nowhere"}
    )
    assert refused.returncode == 1
    assert re.search(rf"see {data}/logs/\S+\.log", refused.stderr), refused.stderr


def test_an_unreachable_database_is_said(tmp_path: Path) -> None:
    env = {"MODELPRESS_DATABASE_URL": "postgresql+psycopg://x@127.0.0.1:1/x"}
    refused = _run("migrate", env=env)
    assert refused.returncode == 1
    assert refused.stderr.startswith("modelpress-server: the database is not reachable")


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    refused = _run("up", "--data", str(tmp_path), "--port", str(_free_port()))
    assert refused.returncode == 1
    assert "was not made by Modelpress" in refused.stderr


def test_every_command_is_documented() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    for words in ("up", "api", "worker", "migrate", "workspace create", "key create"):
        assert f"modelpress-server {words}" in text, words
        assert CliRunner().invoke(cli, [*words.split(), "--help"]).exit_code == 0


def _replaced(service: Service, words: tuple[str, ...], killed: list[psutil.Process | None]) -> bool:
    child = service.child(*words)
    return child is not None and child not in killed


def _run(*arguments: str, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    full = {**clean_environment(), "PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1", **(env or {})}
    return subprocess.run(command(*arguments), env=full, capture_output=True, text=True, timeout=90, cwd="/")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
