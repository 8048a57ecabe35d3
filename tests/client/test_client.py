"""Calls: keys, retries, errors, lists; blocking and asynchronous."""

import asyncio
import threading
import time
from pathlib import Path

import pytest
from modelpress import (
    AsyncClient,
    AuthenticationError,
    Client,
    ConfigurationError,
    Conflict,
    ConnectionFailed,
    Fault,
    InvalidRequest,
    JobRequest,
    NotFound,
    ProtocolError,
    RateLimited,
    Retries,
    ServiceError,
    WaitTimeout,
)
from starlette.responses import HTMLResponse, RedirectResponse

from tests.support.contract import KEY, Service, Serving

REQUEST = JobRequest(
    model_id="mdl_1", recipe={"steps": [{"method": "quantize.dynamic"}]}, targets=["onnxruntime"], seed=7
)


def test_upload_get_and_delete(client: Client, service: Service, tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(b"\0\1" * 2_000_000)
    seen: list[tuple[int, int]] = []
    model = client.models.upload(path, task="classification", metadata={"a": 1}, progress=lambda *p: seen.append(p))
    fields, content = service.uploads[model.id]
    assert content == path.read_bytes()
    assert fields == {"name": "net.pt2", "task": "classification", "metadata": '{"a": 1}', "filename": "net.pt2"}
    assert seen[-1] == (4_000_000, 4_000_000)
    assert client.models.get(model.id) == model
    assert client.models.wait(model.id, timeout_s=1).state == "ready"
    client.models.delete(model.id)
    with pytest.raises(NotFound):
        client.models.get(model.id)


@pytest.mark.parametrize(
    ("name", "kind", "sent"),
    [("c.npz", None, "tensors"), ("c.JSONL", None, "text"), ("c.txt", None, "text"), ("c.txt", "tensors", "tensors")],
)
def test_the_kind_of_a_dataset_is_told_from_its_suffix(
    client: Client, service: Service, tmp_path: Path, name: str, kind: str | None, sent: str
) -> None:
    (tmp_path / name).write_bytes(b"x")
    dataset = client.datasets.upload(tmp_path / name, kind=kind)
    assert service.uploads[dataset.id][0]["kind"] == sent


def test_every_post_has_its_own_idempotency_key(client: Client, service: Service) -> None:
    client.jobs.create(REQUEST)
    client.jobs.create(REQUEST)
    keys = [seen.headers["idempotency-key"] for seen in service.requests("POST", "/v1/jobs")]
    assert len(set(keys)) == 2


def test_a_lost_answer_is_asked_for_again_with_the_same_key(client: Client, service: Service) -> None:
    service.lose_answer("/v1/jobs")
    assert client.jobs.create(REQUEST).id == "job_1"
    keys = [seen.headers["idempotency-key"] for seen in service.requests("POST", "/v1/jobs")]
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_a_retried_upload_sends_the_file_from_the_start(client: Client, service: Service, tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(b"abc" * 100_000)
    service.lose_answer("/v1/models")
    model = client.models.upload(path)
    assert service.uploads[model.id][1] == path.read_bytes()
    keys = {seen.headers["idempotency-key"] for seen in service.requests("POST", "/v1/models")}
    assert len(service.requests("POST", "/v1/models")) == 2
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("status", "code"), [(503, "unavailable"), (429, "rate_limited"), (409, "request_in_progress")]
)
def test_refusals_that_pass_are_waited_out(client: Client, service: Service, status: int, code: str) -> None:
    for _ in range(3):
        service.refuse("/v1/jobs", status, code, Retry_After="0")
    assert client.jobs.create(REQUEST).state == "queued"
    assert len(service.requests("POST", "/v1/jobs")) == 4


def test_retry_after_is_honoured(client: Client, service: Service) -> None:
    service.refuse("/v1/jobs", 503, "unavailable", Retry_After="1")
    before = time.monotonic()
    client.jobs.create(REQUEST)
    assert time.monotonic() - before >= 1


def test_a_wait_that_is_too_long_is_told(client: Client, service: Service) -> None:
    service.refuse("/v1/jobs", 429, "rate_limited", Retry_After="3600")
    with pytest.raises(RateLimited) as caught:
        client.jobs.create(REQUEST)
    assert caught.value.retry_after_s == 3600
    assert len(service.requests("POST", "/v1/jobs")) == 1


def test_a_service_that_stays_away_is_told(client: Client, service: Service) -> None:
    for _ in range(5):
        service.refuse("/v1/jobs/job_1", 503, "unavailable")
    with pytest.raises(ServiceError) as caught:
        client.jobs.get("job_1")
    assert caught.value.code == "unavailable"
    assert len(service.requests("GET", "/v1/jobs/job_1")) == 5


def test_faults_come_with_their_pointers(client: Client, service: Service) -> None:
    service.refuse("/v1/jobs", 422, "unknown_target")
    with pytest.raises(InvalidRequest) as caught:
        client.jobs.create(REQUEST)
    error = caught.value
    assert (error.status, error.code, error.detail) == (422, "unknown_target", "because of unknown_target")
    assert error.errors == (Fault("/targets/0", "no target 'abacus'"),)
    assert len(service.requests("POST", "/v1/jobs")) == 1


def test_delete_whose_answer_was_lost_is_done(client: Client, service: Service, tmp_path: Path) -> None:
    (tmp_path / "m.pt2").write_bytes(b"x")
    id = client.models.upload(tmp_path / "m.pt2").id
    service.lose_answer(f"/v1/models/{id}")
    client.models.delete(id)
    assert id not in service.uploads
    with pytest.raises(NotFound):
        client.models.delete(id)


def test_wrong_key(service: Service) -> None:
    with Client(service.url, "mpk_wrong") as client, pytest.raises(AuthenticationError, match="unauthenticated"):
        client.jobs.get("job_1")


def test_nobody_there(free_port: int, retries: Retries) -> None:
    url = f"http://127.0.0.1:{free_port}"
    with Client(url, KEY, retries=retries) as client, pytest.raises(ConnectionFailed, match=url):
        client.jobs.get("job_1")


def test_a_service_that_is_just_starting_is_waited_for(free_port: int) -> None:
    service, left = Service(), threading.Event()

    def later() -> None:
        time.sleep(0.5)
        with Serving(service, free_port):
            left.wait(20)

    thread = threading.Thread(target=later)
    thread.start()
    with Client(f"http://127.0.0.1:{free_port}", KEY, retries=Retries(attempts=40, cap_s=0.3)) as client:
        assert client.jobs.create(REQUEST).id == "job_1"
    left.set()
    thread.join()


def test_a_page_of_something_else_is_told(client: Client, service: Service) -> None:
    service.faults["/v1/jobs/job_1"].append(lambda: HTMLResponse("<h1>Welcome</h1>"))
    with pytest.raises(ProtocolError, match="a Modelpress service"):
        client.jobs.get("job_1")


def test_redirects_without_end_are_told(client: Client, service: Service) -> None:
    for _ in range(30):
        service.faults["/v1/jobs/job_1"].append(lambda: RedirectResponse("/v1/jobs/job_1"))
    with pytest.raises(ConnectionFailed, match="redirects"):
        client.jobs.get("job_1")


def test_lists_go_over_their_pages(client: Client, service: Service) -> None:
    service.items = 8
    assert [model.id for model in client.models.list(state="ready")] == [f"mdl_{n}" for n in range(8)]
    asked = [seen.query for seen in service.requests("GET", "/v1/models")]
    assert asked == [{"state": "ready"}, {"state": "ready", "cursor": "3"}, {"state": "ready", "cursor": "6"}]
    page = client.models.page(limit=3)
    assert (len(page.items), page.next_cursor) == (3, "3")


def test_a_list_that_is_left_early_asks_no_more(client: Client, service: Service) -> None:
    service.items = 8
    assert next(iter(client.models.list())).id == "mdl_0"
    assert len(service.requests("GET", "/v1/models")) == 1


def test_cancel_of_a_finished_job_is_a_conflict(client: Client, service: Service) -> None:
    client.jobs.create(REQUEST)
    service.finish("succeeded")
    with pytest.raises(Conflict) as caught:
        client.jobs.cancel("job_1")
    assert caught.value.code == "job_already_finished"


def test_wait_ends_with_the_job_or_the_time(client: Client, service: Service) -> None:
    client.jobs.create(REQUEST)
    with pytest.raises(WaitTimeout):
        client.jobs.wait("job_1", timeout_s=0.2)
    timer = threading.Timer(0.3, service.finish, ["failed"])
    timer.start()
    assert client.jobs.wait("job_1").state == "failed"
    timer.join()


def test_fields_left_out_are_not_sent() -> None:
    assert REQUEST.body() == {
        "model_id": "mdl_1",
        "recipe": {"steps": [{"method": "quantize.dynamic"}]},
        "targets": ["onnxruntime"],
        "seed": 7,
    }


@pytest.mark.parametrize("id", ["../keys", "a/b", "x?y=1", "#"])
def test_an_id_stays_within_its_noun(client: Client, service: Service, id: str) -> None:
    with pytest.raises(NotFound):
        client.models.get(id)
    assert service.seen[-1].path.startswith("/v1/models/")


@pytest.mark.parametrize("id", ["", ".", ".."])
def test_what_is_no_id_is_refused_here(client: Client, service: Service, id: str) -> None:
    with pytest.raises(ValueError, match="not an id"):
        client.models.delete(id)
    assert service.seen == []


@pytest.mark.parametrize(
    ("url", "key", "told"),
    [
        ("http://host", None, "no key"),
        ("host:8000", "k", "not a URL"),
        ("ftp://host", "k", "not a URL"),
        ("http://host:port", "k", "not a URL"),
        ("http://host", "a\nb", "characters"),
    ],
)
def test_settings_that_cannot_work(monkeypatch: pytest.MonkeyPatch, url: str, key: str | None, told: str) -> None:
    monkeypatch.delenv("MODELPRESS_KEY", raising=False)
    with pytest.raises(ConfigurationError, match=told):
        Client(url, key)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, service: Service) -> None:
    monkeypatch.setenv("MODELPRESS_URL", f"{service.url}/v1/")
    monkeypatch.setenv("MODELPRESS_KEY", KEY)
    with Client() as client:
        assert client.jobs.create(REQUEST).id == "job_1"


def test_the_async_client_does_the_same(service: Service, tmp_path: Path, retries: Retries) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(b"abc" * 1_000_000)
    service.content = b"int8" * 100_000
    service.cut_content.extend([1000, 70_000])
    service.events = [("state", {"state": "running"}), ("end", {})]
    service.cut_events.append(1)
    service.items = 5

    async def session() -> None:
        async with AsyncClient(service.url, KEY, retries=retries) as client:
            service.refuse("/v1/models", 503, "unavailable", Retry_After="0")
            model = await client.models.upload(path)
            assert service.uploads[model.id][1] == path.read_bytes()
            job = await client.jobs.create(REQUEST)
            events = [event async for event in client.jobs.events(job.id)]
            assert [event.data["state"] for event in events] == ["running", "succeeded"]
            assert (await client.jobs.wait(job.id)).state == "succeeded"
            assert len([one async for one in client.models.list()]) == 5
            file = await client.artifacts.download("art_1", tmp_path)
            assert file.read_bytes() == service.content

    asyncio.run(session())


def test_provenance_of_an_artifact(service: Service, retries: Retries) -> None:
    with Client(service.url, KEY, retries=retries) as client:
        assert client.artifacts.manifest("art_1") == {"seed": 0}
        assert client.artifacts.signature("art_1") == {"dsseEnvelope": {}}
        assert client.artifacts.bom("art_1") == {"bomFormat": "CycloneDX"}


def test_many_calls_at_once(service: Service, retries: Retries) -> None:
    service.job = {"id": "job_1", "state": "queued"}

    async def session() -> None:
        async with AsyncClient(service.url, KEY, retries=retries) as client:
            jobs = await asyncio.gather(*(client.jobs.get("job_1") for _ in range(20)))
            assert {job.id for job in jobs} == {"job_1"}

    asyncio.run(session())
