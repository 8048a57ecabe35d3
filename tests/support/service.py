"""The command ``modelpress-server`` as a process: start it, ask it, look at its family."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import psutil

ROOT = Path(__file__).parents[2]
_OPENER = build_opener(ProxyHandler({}))
#: Time for a start on a busy machine; the time that it should take has a test of its own.
START_S = 60.0


@dataclass
class Service:
    """A running ``modelpress-server up``."""

    process: "subprocess.Popen[str]"
    data: Path
    url: str
    output: Path

    def key(self) -> str:
        """The first key."""
        return (self.data / "admin.key").read_text().strip()

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON of an authenticated GET."""
        return self._send(Request(self.url + path, headers={"Authorization": f"Bearer {self.key()}"}))

    def post(self, path: str, body: object) -> tuple[int, Any]:
        """Status and JSON of an authenticated POST."""
        headers = {"Authorization": f"Bearer {self.key()}", "Content-Type": "application/json"}
        return self._send(Request(self.url + path, json.dumps(body).encode(), headers))

    def upload_dataset(self, name: str, content: bytes) -> tuple[int, Any]:
        """Status and JSON of the upload of a ``.npz``."""
        boundary = "a-boundary-that-is-in-no-file"
        fields = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'
            for field, value in {"name": name, "kind": "tensors"}.items()
        )
        file = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}.npz"\r\n\r\n'
        body = (fields + file).encode() + content + f"\r\n--{boundary}--\r\n".encode()
        content_type = f"multipart/form-data; boundary={boundary}"
        headers = {"Authorization": f"Bearer {self.key()}", "Content-Type": content_type}
        return self._send(Request(f"{self.url}/v1/datasets", body, headers))

    def ready(self) -> bool:
        """Whether ``/readyz`` answers 200."""
        try:
            return self._send(Request(f"{self.url}/readyz"), patience=2)[0] == 200
        except OSError:
            return False

    def child(self, *words: str) -> psutil.Process | None:
        """The running direct child whose command line holds all of `words`."""
        for child in alive(psutil.Process(self.process.pid).children()):
            line = " ".join(child.cmdline())
            if all(word in line for word in words):
                return child
        return None

    def _send(self, request: Request, patience: float = 20) -> tuple[int, Any]:
        try:
            with _OPENER.open(request, timeout=patience) as response:
                return response.status, json.loads(response.read() or b"null")
        except HTTPError as error:
            with error:
                return error.code, json.loads(error.read() or b"null")


def wait_until(condition: Callable[[], bool], seconds: float = START_S, what: str = "it") -> None:
    """Waits for `condition`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen in {seconds} s")
        time.sleep(0.05)


def family(pid: int) -> list[psutil.Process]:
    """A process and all its descendants."""
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run (a zombie that nobody has reaped does not)."""
    return [process for process in processes if process.is_running() and _status(process) != psutil.STATUS_ZOMBIE]


def clean_environment() -> dict[str, str]:
    """This process's environment without any setting of Modelpress."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MODELPRESS_")}


def command(*arguments: str) -> list[str]:
    """``modelpress-server`` with `arguments`."""
    return [sys.executable, "-m", "app", *arguments]


@contextmanager
def serving(data: Path, port: int, prefix: Sequence[str] = ()) -> Iterator[Service]:
    """Runs ``modelpress-server up`` until the block ends; `prefix` goes before the command."""
    output = data.with_name(f"{data.name}.output")
    line = [*prefix, *command("up", "--data", str(data), "--port", str(port))]
    env = {**clean_environment(), "PYTHONPATH": str(ROOT)}
    with output.open("a") as file:
        process = subprocess.Popen(line, stdout=file, stderr=file, cwd=output.parent, env=env, text=True)
    service = Service(process, data, f"http://127.0.0.1:{port}", output)
    try:
        wait_until(lambda: service.ready() or process.poll() is not None, what="readiness")
        if process.poll() is not None:
            raise RuntimeError(f"the service ended with {process.returncode}:\n{output.read_text()}")
        yield service
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _status(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return str(psutil.STATUS_ZOMBIE)
