"""Following a job through broken streams."""

import pytest
from modelpress import Client, ConnectionFailed, NotFound

from tests.support.contract import Service

HISTORY = [
    ("state", {"state": "running"}),
    ("progress", {"phase": "reading", "progress": 0.1, "eta_s": 3}),
    ("log", {"level": "info", "message": "hello"}),
    ("progress", {"phase": "measuring", "progress": 0.9, "eta_s": 1}),
    ("end", {}),
]


@pytest.fixture
def running(service: Service) -> Service:
    service.job = {"id": "job_1", "state": "running"}
    service.events = list(HISTORY)
    return service


def numbers(client: Client, **options: str) -> list[int]:
    return [int(event.id) for event in client.jobs.events("job_1", **options)]


def test_all_events_in_order(client: Client, running: Service) -> None:
    events = list(client.jobs.events("job_1"))
    assert [event.type for event in events] == ["state", "progress", "log", "progress", "state"]
    assert events[-1].data == {"state": "succeeded"}
    assert len(running.requests("GET", "/v1/jobs/job_1/events")) == 1


def test_drops_lose_nothing_and_repeat_nothing(client: Client, running: Service) -> None:
    running.cut_events.extend([1, 2, 0])
    assert numbers(client) == [1, 2, 3, 4, 5]
    asked = [seen.headers.get("last-event-id") for seen in running.requests("GET", "/v1/jobs/job_1/events")]
    assert asked == [None, "1", "3", "3"]


def test_a_refusal_between_is_waited_out(client: Client, running: Service) -> None:
    running.cut_events.append(2)
    running.refuse("/v1/jobs/job_1/events", 503, "unavailable", Retry_After="0")
    assert numbers(client) == [1, 2, 3, 4, 5]


def test_after_an_event(client: Client, running: Service) -> None:
    assert numbers(client, after="3") == [4, 5]


def test_a_stream_that_ends_without_the_end_is_asked_again(client: Client, running: Service) -> None:
    running.events = HISTORY[:2]

    def more(history: list[tuple[str, dict[str, object]]] = HISTORY) -> None:
        running.events = history

    seen = []
    for event in client.jobs.events("job_1"):
        seen.append(int(event.id))
        more()
    assert seen == [1, 2, 3, 4, 5]


def test_nothing_more_of_a_finished_job(client: Client, running: Service) -> None:
    running.finish("succeeded")
    running.events = []
    assert numbers(client) == []


def test_a_stream_that_never_holds_is_told(client: Client, running: Service) -> None:
    running.cut_events.extend([0] * 20)
    with pytest.raises(ConnectionFailed, match="broke off"):
        numbers(client)


def test_no_such_job(client: Client, service: Service) -> None:
    service.refuse("/v1/jobs/job_1/events", 404, "not_found")
    with pytest.raises(NotFound):
        numbers(client)


def test_leaving_early_closes_the_stream(client: Client, running: Service) -> None:
    events = client.jobs.events("job_1")
    assert next(events).id == "1"
    events.close()
    assert client.jobs.get("job_1").state in ("running", "succeeded")
