"""docs/examples/: the receiver takes in what is signed, CI files keep their schemas, pipelines use steps there are."""

import ast
import http.client
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import yaml
from standardwebhooks import Webhook

from app.webhooks.signing import signed_headers
from tests.support.docs.blocks import ROOT
from tests.support.docs.commands import check_commands

EXAMPLES = ROOT / "docs" / "examples"
SECRET = "whsec_" + "c2VjcmV0IG9mIHRoZSBleGFtcGxlISE="
BODY = '{"type": "job.succeeded", "data": {"id": "job_1"}}'


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(EXAMPLES)
    import webhook_receiver

    return webhook_receiver


class Work:
    """What a receiver does with messages, and those that it got."""

    def __init__(self) -> None:
        self.done: list[dict[str, Any]] = []
        self.broken = False

    def __call__(self, message: dict[str, Any]) -> None:
        if self.broken:
            raise RuntimeError("the disk is full")
        self.done.append(message)

    def wait(self, count: int) -> None:
        deadline = time.monotonic() + 10
        while len(self.done) < count:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@contextmanager
def serving(receiver: Any, inbox: Path, work: Work) -> Iterator[int]:
    with receiver.Server(("127.0.0.1", 0), Webhook(SECRET), receiver.Inbox(inbox), work) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def post(port: int, headers: dict[str, str], body: str | bytes = BODY) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", "/", body, headers)
    status = connection.getresponse().status
    connection.close()
    return status


def signed(message_id: str = "msg_1", secret: str = SECRET) -> dict[str, str]:
    return signed_headers([secret], message_id, datetime.now(UTC), BODY)


def test_a_delivery_is_worked_on_once_however_often_it_comes(receiver: Any, tmp_path: Path) -> None:
    work = Work()
    with serving(receiver, tmp_path / "inbox", work) as port:
        assert [post(port, signed()), post(port, signed()), post(port, signed("msg_2"))] == [HTTPStatus.NO_CONTENT] * 3
        work.wait(2)
    assert [message["type"] for message in work.done] == ["job.succeeded"] * 2


def test_what_is_forged_changed_or_too_long_is_refused(receiver: Any, tmp_path: Path) -> None:
    work = Work()
    other = "whsec_" + "YW5vdGhlciBzZWNyZXQgdGhhbiB0aGF0"
    with serving(receiver, tmp_path / "inbox", work) as port:
        assert post(port, signed(secret=other)) == HTTPStatus.UNAUTHORIZED
        assert post(port, signed(), BODY.replace("job_1", "job_2")) == HTTPStatus.UNAUTHORIZED
        assert post(port, {}) == HTTPStatus.UNAUTHORIZED
        assert post(port, signed(), b"\xff\xfe") == HTTPStatus.UNAUTHORIZED
        assert post(port, signed() | {"webhook-signature": "v1,no base64"}) == HTTPStatus.UNAUTHORIZED
        assert post(port, {"Content-Length": "99999999"}, "") == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    assert work.done == []


def test_the_end_waits_for_the_delivery_in_hand_alone(receiver: Any, tmp_path: Path) -> None:
    began, may_end, done = threading.Event(), threading.Event(), []

    def work(message: dict[str, Any]) -> None:
        began.set()
        may_end.wait(10)
        done.append(message)

    with receiver.Server(("127.0.0.1", 0), Webhook(SECRET), receiver.Inbox(tmp_path / "inbox"), work) as server:
        for number in range(3):
            server.inbox.put(f"msg_{number}", BODY)
        server.news.set()
        began.wait(10)
        closing = threading.Thread(target=server.server_close)
        closing.start()
        while not server.ends:
            time.sleep(0.01)
        may_end.set()
        closing.join()
    assert len(done) == 1
    assert len(receiver.Inbox(tmp_path / "inbox").waiting()) == 2


def test_what_was_not_worked_on_is_at_the_next_start(receiver: Any, tmp_path: Path) -> None:
    work = Work()
    work.broken = True
    with serving(receiver, tmp_path / "inbox", work) as port:
        assert post(port, signed()) == HTTPStatus.NO_CONTENT
    work.broken = False
    with serving(receiver, tmp_path / "inbox", work):
        work.wait(1)


@pytest.mark.parametrize(
    ("name", "schema"), [("github-actions.yml", "vendor.github-workflows"), ("gitlab-ci.yml", "vendor.gitlab-ci")]
)
def test_files_for_ci_keep_their_schema_and_run_what_there_is(name: str, schema: str) -> None:
    argv = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, EXAMPLES / name]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    commands = list(_commands(yaml.safe_load((EXAMPLES / name).read_text())))
    assert any(command.startswith("modelpress compress") for command in commands)
    check_commands("\n".join(commands))


def _commands(value: Any, key: str = "") -> Iterator[str]:
    """What stands under ``run`` and ``script``."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _commands(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _commands(inner, key)
    elif key in ("run", "script", "before_script") and isinstance(value, str):
        yield value


def test_the_gate_passes_only_where_nothing_has_changed() -> None:
    limits = yaml.safe_load((EXAMPLES / "github-actions.yml").read_text())["jobs"]["limits"]
    assert limits["if"] == "${{ !cancelled() && needs.changes.outputs.any != 'false' }}"
    unchanged = yaml.safe_load((EXAMPLES / "gitlab-ci.yml").read_text())["unchanged"]
    assert unchanged["rules"][0]["when"] == "never"


@pytest.mark.parametrize("name", ["airflow_dag.py", "prefect_flow.py"])
def test_pipelines_use_steps_that_there_are(name: str) -> None:
    steps = {one.name for one in ast.parse((EXAMPLES / "pipeline_steps.py").read_text()).body if hasattr(one, "name")}
    used = {
        node.attr
        for node in ast.walk(ast.parse((EXAMPLES / name).read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pipeline_steps"
    }
    assert used == steps == {"upload", "start", "wait", "fetch"}
