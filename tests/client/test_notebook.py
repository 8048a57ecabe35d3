"""What a notebook shows: tables of what was measured, progress that moves, and nothing that could act."""

import asyncio
import xml.etree.ElementTree as ElementTree

import pytest
from modelpress import AsyncClient, Client, Estimate, Job, JobRequest, Key, LiveJob, Page
from modelpress.notebook import NotebookScreen

from tests.support.contract import KEY, Service

EVIL = "<script>alert(1)</script>"
EVENTS = [
    ("state", {"state": "running"}),
    ("progress", {"progress": 0.25, "phase": "compressing", "eta_s": 90}),
    ("log", {"message": EVIL}),
    ("end", {}),
]


def cells(html: str) -> list[list[str]]:
    """Rows of the tables; the HTML has to be well formed."""
    tree = ElementTree.fromstring(f"<div>{html}</div>")
    assert not [one for one in tree.iter() if one.tag == "script"]
    return [["".join(cell.itertext()) for cell in row] for row in tree.iter("tr")]


@pytest.fixture
def job(client: Client, service: Service) -> LiveJob:
    service.events = [*EVENTS]
    request = JobRequest(model_id="mdl_1", recipe="auto", targets=["onnxruntime"], name=EVIL)
    return client.jobs.create(request)


def test_a_finished_job_is_the_table_of_before_and_after(job: LiveJob) -> None:
    assert '<progress value="0.000"' in job._repr_html_()
    rows = cells(job.wait(timeout_s=5)._repr_html_() if list(job.events()) else "")
    assert rows[0] == ["", "onnxruntime"]
    figures = dict(row for row in rows[1:])
    assert figures["size ratio"] == "0.275"
    assert figures["accuracy, float"].startswith("98.00 %")
    assert figures["gate"] == "passed"


def test_progress_moves(job: LiveJob) -> None:
    shown: list[str] = []
    with NotebookScreen(shown.append) as screen:
        for event in job.events():
            screen.event(event)
    assert "queued 0%" in shown[0]
    assert any('value="0.250"' in one and "compressing 25%, about 1 min 30 s left" in one for one in shown)
    assert "succeeded" in shown[-1]
    assert "&lt;script&gt;" in shown[-1]
    assert all(cells(one) == [] for one in shown)


def test_outside_a_notebook_following_prints_lines(job: LiveJob, capfd: pytest.CaptureFixture[str]) -> None:
    assert job.follow().state == "succeeded"
    err = capfd.readouterr().err
    assert "compressing, 25 %, about 1 min 30 s left" in err
    assert "job succeeded" in err


def test_following_awaited(service: Service, capfd: pytest.CaptureFixture[str]) -> None:
    service.events = [*EVENTS]

    async def followed() -> str | None:
        async with AsyncClient(service.url, KEY) as client:
            job = await client.jobs.create(JobRequest(model_id="mdl_1", recipe="auto", targets=["onnxruntime"]))
            return (await job.follow()).state

    assert asyncio.run(followed()) == "succeeded"
    assert "job succeeded" in capfd.readouterr().err


def test_pages_estimates_and_other_views_are_tables() -> None:
    page = Page((Job(id="job_1", state="queued", name=EVIL), Job(id="job_2", state="failed")), "next")
    rows = cells(page._repr_html_())
    assert rows[0][:3] == ["id", "state", "name"]
    assert rows[1][:3] == ["job_1", "queued", EVIL]
    assert cells(Page((), None)._repr_html_()) == []
    told = Estimate(size_bytes=1_100_000, targets={"torch": 7}, run_s=75, fits=True, notes=(EVIL,))._repr_html_()
    assert ["size, torch", "7 B"] in cells(told)
    assert ["a worker has the memory", "yes"] in cells(told)
    secret = Key(id="key_1", name=EVIL, key="mpk_secret")._repr_html_()
    assert ["name", EVIL] in cells(secret)
    assert "mpk_secret" not in secret
