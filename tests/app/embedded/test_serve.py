"""API processes that share a port: their figures add up, and they drain before they end."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.service import ROOT, alive, clean_environment, command, family, wait_until

_OPENER = build_opener(ProxyHandler({}))


@pytest.fixture
def env(database_url: str, broker_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        **clean_environment(),
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(tmp_path),
        "MODELPRESS_DATABASE_URL": database_url,
        "MODELPRESS_BROKER_URL": broker_url,
        "MODELPRESS_STORE_URL": (tmp_path / "store").as_uri(),
        "MODELPRESS_KEY_PEPPER": "pepper",
        "MODELPRESS_LOG_FORMAT": "json",
        "MODELPRESS_DRAIN_S": "1.5",
    }


def _get(url: str) -> tuple[int, str]:
    """Status and text; 0 where nobody answers."""
    try:
        with _OPENER.open(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def _figures(url: str) -> dict[str, dict[str, float]]:
    """Name -> labels -> value."""
    found: dict[str, dict[str, float]] = {}
    for metric in text_string_to_metric_families(_get(f"{url}/metrics")[1]):
        for sample in metric.samples:
            found.setdefault(sample.name, {})[",".join(sample.labels.values())] = sample.value
    return found


def _probes(url: str) -> float:
    return _figures(url)["modelpress_http_requests_total"]["GET,/healthz,200"]


def test_two_processes_on_one_port(env: dict[str, str], tmp_path: Path, free_port: int) -> None:
    url, output = f"http://127.0.0.1:{free_port}", tmp_path / "output"
    with output.open("w") as file:
        process = subprocess.Popen(
            command("api", "--port", str(free_port), "--workers", "2"), env=env, cwd=tmp_path, stdout=file, stderr=file
        )
    try:
        wait_until(lambda: len(_processes(url)) == 2, what=f"two processes: {output.read_text()}")
        before = _probes(url)
        for _ in range(20):
            assert _get(f"{url}/healthz")[0] == 200
        assert {_probes(url) - before for _ in range(6)} == {20}, "whichever process is asked"
        victim = _processes(url)[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(set(_processes(url)) - {victim}) == 2, what="another process")
        assert _probes(url) - before >= 20, "what a process has counted outlives it"
        members = family(process.pid)
        process.terminate()
        wait_until(lambda: "it is stopping" in _get(f"{url}/readyz")[1], 5, "draining")
        assert _get(f"{url}/healthz")[0] == 200, "while it drains, it serves"
        assert process.wait(15) == 0
        assert alive(members) == []
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    _check_log(output.read_text())
    assert not list(tmp_path.glob("modelpress-figures-*"))


def _processes(url: str) -> list[int]:
    """The API processes that the figures know."""
    return [int(pid) for pid in _figures(url).get("process_resident_memory_bytes", {}) if psutil.pid_exists(int(pid))]


def _check_log(text: str) -> None:
    lines = [json.loads(line) for line in text.splitlines()]
    assert {"app.cli", "app.embedded.supervisor", "uvicorn.error"} <= {line["logger"] for line in lines}
    assert any(re.search("ended with status -9", line["message"]) for line in lines)
    assert all(time.strptime(line["time"][:19], "%Y-%m-%dT%H:%M:%S") for line in lines)
