"""The API keeps the promises of its OpenAPI document, whatever is sent (schemathesis, over a socket, with a key)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import SecretStr
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from app.admin import make_first_key
from app.config import Settings
from app.main import create_app
from app.tables import Worker
from tests.support.loopback import served

#: Bytes of resumable uploads are bytes.
schemathesis.serializer.alias(["application/offset+octet-stream"], "application/octet-stream")
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 15


@dataclass
class Live:
    """A running API with one of everything in it."""

    url: str
    headers: dict[str, str]
    known: dict[str, str] = field(default_factory=dict)


@pytest.fixture
def live(database_url: str, broker_url: str, tmp_path: Path) -> Iterator[Live]:
    settings = Settings(
        _env_file=None,
        database_url=database_url,
        broker_url=broker_url,
        store_url=f"file://{tmp_path}/store",
        key_pepper=SecretStr("pepper"),
        min_free_disk_bytes=0,
        worker_ttl_s=3600,
        rate_limit_per_s=0,  # an answer of 429 tells nothing
    )
    make_first_key(settings, tmp_path / "key")
    key = (tmp_path / "key").read_text().strip()
    _add_workers(settings)
    with served(uvicorn.Config(create_app(settings), port=0, log_level="warning")) as (host, port):
        live = Live(f"http://{host}:{port}", {"Authorization": f"Bearer {key}"})
        for noun, name in (("models", "model_id"), ("datasets", "dataset_id")):
            form = {"name": "n", **({"kind": "tensors"} if noun == "datasets" else {})}
            files = {"file": ("f", b"bytes")}
            made = httpx2.post(f"{live.url}/v1/{noun}", data=form, files=files, headers=live.headers)
            live.known[name] = made.json()["id"]
        hook = {"url": "https://receiver.invalid/", "events": ["job.failed"], "name": "n"}
        live.known["webhook_id"] = httpx2.post(f"{live.url}/v1/webhooks", json=hook, headers=live.headers).json()["id"]
        yield live


def _add_workers(settings: Settings) -> None:
    """Rows of live workers, so that jobs are taken in and the service is ready."""
    engine = create_engine(settings.database_url)
    with Session(engine) as session, session.begin():
        for queue in ("cpu", "checks"):
            session.add(Worker(id=queue, hostname="h", queue=queue, targets=["onnxruntime", "torch"], capabilities={}))
    engine.dispose()


# The API is a thread of this process: a random number that it draws is not the strategy's.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
def test_whatever_is_sent(live: Live) -> None:
    """No server error, no undocumented status, no answer that is not as described."""
    schema = schemathesis.openapi.from_url(f"{live.url}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) > 25
    for operation in operations:
        _check(operation, live)


def _check(operation: Any, live: Live) -> None:
    @given(case=operation.as_strategy(), known=st.booleans())
    @hypothesis_settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def sends(case: Any, known: bool) -> None:
        if known and operation.method != "delete":
            for name, value in live.known.items():
                if name in (case.path_parameters or {}):
                    case.path_parameters[name] = value
        headers = dict(live.headers)
        if operation.path.endswith("/events"):
            headers["Accept"] = "application/json"  # the stream of a job that is not over does not end
        case.call_and_validate(headers=headers, checks=CHECKS, timeout=20)

    sends()
