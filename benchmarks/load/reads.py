"""``GET /v1/jobs/{id}`` of a finished job beside bare endpoints that answer as many bytes."""

import json
import statistics
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from typing import Any

from benchmarks.load.bare import KINDS
from benchmarks.load.machine import Line, cores, pin
from benchmarks.load.rows import finished_job
from benchmarks.load.site import Site, bare_server
from tests.support.servers import ROOT

AIM = 0.35


def measure(site: Site, options: Namespace) -> Iterator[Line]:
    """Rounds in turn; the ratio of the medians."""
    path = f"/v1/jobs/{finished_job(site)}"
    size = len(_body(site, path))
    with ExitStack() as bare:
        urls = {kind: bare.enter_context(bare_server(site.settings, site.folder, kind, size)) for kind in KINDS}
        urls["job"] = site.url
        for url in urls.values():
            _round(url + path, options.connections, 0.5, site.key)  # warm
        rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in urls}
        for _ in range(options.rounds):
            for name, url in urls.items():
                rounds[name].append(_round(url + path, options.connections, options.seconds, site.key))
    told = f"{options.rounds} rounds of {options.seconds:g} s"
    yield Line(f"{size} bytes of JSON, {options.connections} connections, {told}")
    rates = {name: statistics.median(one["per_s"] for one in of_one) for name, of_one in rounds.items()}
    for name, of_one in rounds.items():
        p99, busy = max(one["p99_s"] for one in of_one), max(one["busy"] for one in of_one)
        yield Line(f"{name:9} {rates[name]:7.0f} requests/s, p99 {1000 * p99:.1f} ms, client busy {busy:.0%}")
    for kind, aim in zip(KINDS, (f"   (aim: at least {AIM})", ""), strict=True):
        yield Line(f"to {kind:9} {rates['job'] / rates[kind]:7.3f}{aim}")
    failures = sum(one["failures"] for of_one in rounds.values() for one in of_one)
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
