"""Pages of ``GET /v1/jobs`` where the table is long."""

import json
import re
import time
from argparse import Namespace
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

from benchmarks.load.machine import Line, quantile, told_ms
from benchmarks.load.rows import many_jobs
from benchmarks.load.site import Site

AIM_S = 0.05
#: How far down the deep page is, in pages of 200 jobs, and how many are turned at most.
DEEP = 100
#: How long the log may be behind the answers, in seconds.
PATIENCE_S = 10.0

_LOGGED = re.compile(r"GET /v1/jobs 200 in ([0-9.]+) s \[.*?request_id=(\w+)")

PAGES = {
    "first page": "",
    "of a state": "state=succeeded",
    "of a rare state": "state=running",
    "of a name": "name=nightly-7",
    "of no such name": "name=nobody",
    "of a tag's value": "tag=team:team-3",
    "of a rare tag": "tag=commit:c4ca4238a0b923820dcc509a6f75849b",
    "of no such tag": "tag=nothing",
    "queued": "state=queued",
}


def measure(site: Site, options: Namespace) -> Iterator[Line]:
    """Times every kind of page, one request after the other: as the log tells it, and as the client sees it."""
    many_jobs(site, options.rows)
    connection = HTTPConnection(site.url.removeprefix("http://"))
    cursor = _deep(connection, site.key)
    queries = {**PAGES, "deep page": f"cursor={cursor}", "deep, of a name": f"name=nightly-7&cursor={cursor}"}
    yield Line(f"{options.rows} jobs, half of them in the workspace; {options.requests} requests each, 50 jobs a page")
    for name, query in queries.items():
        seen, asked = [], []
        for _ in range(options.requests):
            started = time.perf_counter()
            page, request_id = _page(connection, site.key, query)
            seen.append(time.perf_counter() - started)
            asked.append(request_id)
        took = _told(site, asked)
        within = "" if quantile(took, 0.99) <= AIM_S else f"   (aim: p99 at most {1000 * AIM_S:g} ms)"
        yield Line(f"{name:18} {len(page['items']):3} jobs: {told_ms(took)}; client: {told_ms(seen)}{within}")
    connection.close()


def _deep(connection: HTTPConnection, key: str) -> str:
    cursor = ""
    for _ in range(DEEP):
        page, _ = _page(connection, key, f"limit=200{cursor and '&cursor=' + cursor}")
        if page["next_cursor"] is None:
            break
        cursor = page["next_cursor"]
    return cursor


def _told(site: Site, asked: list[str]) -> list[float]:
    """Seconds that the API took for these requests, by its log: it tells once the client has its answer, or after."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        told = {request_id: float(took) for took, request_id in _LOGGED.findall(site.log.read_text())}
        if told.keys() >= set(asked):
            return [told[request_id] for request_id in asked]
        if time.monotonic() > deadline:
            raise RuntimeError(f"the API's log does not tell of {set(asked) - told.keys()}")
        time.sleep(0.01)


def _page(connection: HTTPConnection, key: str, query: str) -> tuple[dict[str, Any], str]:
    """The page, and the request's id."""
    connection.request("GET", f"/v1/jobs?{query}", headers={"Authorization": f"Bearer {key}"})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise RuntimeError(body.decode())
    page: dict[str, Any] = json.loads(body)
    return page, answer.headers["X-Request-Id"]
