"""What operators see of a worker: JSON lines about its jobs, and spans in the trace of the request."""

import json

from tests.support.deployment import Deployment
from tests.support.traces import collector

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_an_attempt_is_logged_and_traced(service: Deployment) -> None:
    with collector() as traces:
        worker = service.start_worker(MODELPRESS_LOG_FORMAT="json", MODELPRESS_OTLP_ENDPOINT=traces.endpoint)
        good = service.add_check(trace_parent=f"00-{TRACE}-{PARENT}-01")
        bad = service.add_check(b"not a zip")
        service.look()
        service.await_state(good, "succeeded")
        service.await_state(bad, "failed")
        worker.stop()
        runs = {span.attributes["modelpress.job_id"]: span for span in traces.spans if span.name == "job run"}
        run = runs[good]
        assert (run.service, run.trace_id, run.parent, run.failed) == ("modelpress-worker", TRACE, PARENT, False)
        below = [span.name for span in traces.spans if span.parent == run.span_id]
        assert below == ["job wait", "job prepare", "job reading", "job store"]
        assert runs[bad].failed
        assert runs[bad].attributes["error.type"] == service.job(bad).error["code"]  # type: ignore[index]
    written = [line for line in worker.log.read_text().splitlines() if line]
    assert written.pop().startswith("worker: Warm shutdown")  # Celery's own last word, to the terminal
    lines = [json.loads(line) for line in written]  # nothing but JSON
    about = {line.get("job_id") for line in lines}
    assert about == {None, good, bad}
    ended = next(line for line in lines if line.get("job_id") == good and "ended" in line["message"])
    assert (ended["workspace_id"], ended["attempt"], ended["trace_id"]) == ("wsp_test", 1, TRACE)
