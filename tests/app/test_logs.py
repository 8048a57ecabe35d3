"""Logs: lines that machines read, what they are about, and what never stands in them."""

import json
import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from app import logs
from app.accounts.keys import make_key
from app.config import Settings

SETTINGS = Settings(
    _env_file=None,
    database_url="postgresql+psycopg://mp:password-of-postgres@db/mp",
    broker_url="redis://:password-of-redis@redis:6379/0",
    key_pepper=SecretStr("pepper-of-the-keys"),
    metrics_token=SecretStr("token-of-the-scraper"),
)


def _record(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    logger = logging.getLogger("some.logger")
    return logger.makeRecord("some.logger", logging.WARNING, "f.py", 1, message, arguments, None, extra=extra or None)


def test_a_line_of_json_says_what_it_is_about() -> None:
    formatter = logs.JsonFormatter()
    with logs.bound(request_id="r1", job_id=None), logs.bound(workspace_id="wsp_1"):
        logs.bind(job_id="job_1", attempt=2)
        line = json.loads(formatter.format(_record("%d of %d", 1, 2, fields={"status": 200})))
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "warning",
        "logger": "some.logger",
        "message": "1 of 2",
        "request_id": "r1",
        "workspace_id": "wsp_1",
        "job_id": "job_1",
        "attempt": 2,
        "status": 200,
    }
    assert "request_id" not in json.loads(formatter.format(_record("later")))


@given(st.text(), st.text())
def test_whatever_is_logged_is_one_line(message: str, value: str) -> None:
    with logs.bound(name=value):
        line = logs.JsonFormatter().format(_record("%s", message))
        assert json.loads(line)["message"] == message
        assert "\n" not in line
        text = logs.TextFormatter().format(_record("%s", message))
    assert all(more.startswith("    ") for more in text.split("\n")[1:])


@pytest.mark.parametrize("formatter", [logs.JsonFormatter, logs.TextFormatter])
def test_secrets_are_struck_out(formatter: type[logs.JsonFormatter]) -> None:
    key = make_key(SETTINGS.key_pepper)
    secrets = ["password-of-postgres", "password-of-redis", "pepper-of-the-keys", "token-of-the-scraper", key.text]
    made = formatter(logs.secrets_of(SETTINGS))
    try:
        raise RuntimeError(f"cannot reach {SETTINGS.database_url} with {key.text}")
    except RuntimeError:
        sent = ({"Authorization": "Bearer abc.def"}, "amqp://user:hidden@host/")
        record = _record("sent %s to %s", *sent, fields={"a": key.text})
        record.exc_info = sys.exc_info()
    line = made.format(record) + made.format(_record(" ".join(secrets)))
    assert not [secret for secret in [*secrets, "abc.def", "hidden", key.text[-32:]] if secret in line]
    assert key.prefix in line, "the public part, by which a key is found, stays"
    assert "cannot reach postgresql+psycopg://mp:***@db/mp" in line


def test_setup_replaces_what_was_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.Logger("root")
    root.addHandler(logging.StreamHandler())
    monkeypatch.setattr(logging, "getLogger", lambda _name=None: root)
    monkeypatch.setattr(logging, "captureWarnings", lambda _on: None)
    logs.setup(SETTINGS.model_copy(update={"log_format": "json", "log_level": "warning"}))
    root.info("unseen")
    root.warning("seen")
    assert json.loads(capsys.readouterr().err)["message"] == "seen"
