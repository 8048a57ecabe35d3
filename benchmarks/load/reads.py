"""``GET /v1/jobs/{id}`` of a finished job beside a bare endpoint that answers as many bytes."""

import json
import statistics
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

from benchmarks.load.machine import Line, cores, pin
from benchmarks.load.rows import finished_job
from benchmarks.load.site import Site, bare_server
from tests.support.servers import ROOT

AIM = 0.35


def measure(site: Site, options: Namespace) -> Iterator[Line]:
    """Rounds in turn; the ratio of the medians."""
    path = f"/v1/jobs/{finished_job(site)}"
    size = len(_body(site, path))
    with bare_server(site.settings, site.folder, size) as bare:
        ours: list[dict[str, Any]] = []
        theirs: list[dict[str, Any]] = []
        for url in (bare, site.url):
            _round(url + path, options.connections, 0.5, site.key)  # warm
        for _ in range(options.rounds):
            for url, into in [(bare, theirs), (site.url, ours)]:
                into.append(_round(url + path, options.connections, options.seconds, site.key))
    rates = [statistics.median(one["per_s"] for one in rounds) for rounds in (ours, theirs)]
    rounds_told = f"{options.rounds} rounds of {options.seconds:g} s"
    yield Line(f"{size} bytes of JSON, {options.connections} connections, {rounds_told}")
    for name, rounds, rate in (("job", ours, rates[0]), ("bare", theirs, rates[1])):
        p99, busy = max(one["p99_s"] for one in rounds), max(one["busy"] for one in rounds)
        yield Line(f"{name:5} {rate:7.0f} requests/s, p99 {1000 * p99:.1f} ms, client busy {busy:.0%}")
    yield Line(f"ratio {rates[0] / rates[1]:7.2f}   (aim: at least {AIM})")
    failures = sum(one["failures"] for one in (*ours, *theirs))
    if failures:
        yield Line(f"{failures:.0f} requests failed", failed=True)


def _body(site: Site, path: str) -> bytes:
    connection = HTTPConnection(site.url.removeprefix("http://"))
    connection.request("GET", path, headers={"Authorization": f"Bearer {site.key}"})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    if answer.status != 200:
        raise RuntimeError(body.decode())
    return body


def _round(url: str, connections: int, seconds: float, key: str) -> dict[str, Any]:
    argv = [sys.executable, "-m", "benchmarks.load.client", url, str(connections), str(seconds), key]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=ROOT) as process:
        pin(process.pid, cores()[1])
        output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the client ended with {process.returncode}")
    answer: dict[str, Any] = json.loads(output)
    return answer
