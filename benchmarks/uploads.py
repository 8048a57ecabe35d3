"""Uploads beside what they cannot be faster than: ``cp`` plus hashlib's SHA-256 of the same file.

``python benchmarks/uploads.py [MIB]`` starts the API as a process on a real database, sends one file by a raw socket
(no client library in the way), in rounds that alternate with the yardstick, and prints the ratio of the medians and the
largest memory of the API process. ``--download`` does the same for downloads against ``cat`` to a pipe.
"""

import argparse
import hashlib
import http.client
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[1]))

from app.migrate import upgrade
from tests.support.servers import running_postgres, running_valkey, temporary_folder

MIB = 1024**2
BOUNDARY = "upload-benchmark"
HEAD = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="name"\r\n\r\nbenchmark\r\n'
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="m.pt2"\r\n\r\n'
).encode()
TAIL = f"\r\n--{BOUNDARY}--\r\n".encode()


@dataclass(frozen=True)
class Server:
    """A running API process without authentication."""

    url: str
    process: "subprocess.Popen[bytes]"

    def peak_bytes(self) -> int:
        """Its largest resident size so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024


@contextmanager
def api_process(folder: Path, port: int) -> Iterator[Server]:
    """The API on real servers, as deployments run it."""
    with temporary_folder() as private, running_postgres(private) as postgres, running_valkey(private) as valkey:
        upgrade(postgres.url())
        environment = {
            **os.environ,
            "MODELPRESS_DATABASE_URL": postgres.url(),
            "MODELPRESS_BROKER_URL": valkey.broker_url(),
            "MODELPRESS_STORE_URL": f"file://{folder}/store",
            "MODELPRESS_AUTH_ENABLED": "false",
        }
        argv = [sys.executable, "-m", "uvicorn", "--factory", "app.main:create_app", "--port", str(port)]
        root = Path(__file__).parents[1]
        process = subprocess.Popen([*argv, "--log-level", "warning"], env=environment, cwd=root)
        try:
            _wait_until_up(port)
            yield Server(f"http://127.0.0.1:{port}", process)
        finally:
            process.terminate()
            process.wait()


def send(url: str, path: Path, key: str | None = None) -> str:
    """Uploads a file; its id."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.putrequest("POST", "/v1/models")
    if key is not None:
        connection.putheader("Authorization", f"Bearer {key}")
    connection.putheader("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
    connection.putheader("Content-Length", str(len(HEAD) + path.stat().st_size + len(TAIL)))
    connection.endheaders(HEAD)
    with path.open("rb") as file:
        connection.sock.sendfile(file)
    connection.send(TAIL)
    response = connection.getresponse()
    location = response.getheader("Location", "")
    if response.status != 201:
        raise RuntimeError(response.read().decode())
    connection.close()
    return location.rpartition("/")[2]


def fetch(server: Server, model_id: str) -> int:
    """Downloads a file; the number of its bytes."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc)
    connection.request("GET", f"/v1/models/{model_id}/content")
    response = connection.getresponse()
    buffer = bytearray(MIB)
    size = 0
    while count := response.readinto(buffer):
        size += count
    connection.close()
    return size


def yardstick(path: Path, copy: Path) -> None:
    """What an upload cannot do without: a copy and a digest."""
    shutil.copyfile(path, copy)
    with path.open("rb") as file:
        hashlib.file_digest(file, "sha256")


def random_file(path: Path, mebibytes: int) -> Path:
    """A file that does not compress."""
    with path.open("wb") as file:
        for _ in range(mebibytes):
            file.write(os.urandom(MIB))
    return path


def _timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _wait_until_up(port: int) -> None:
    for _ in range(200):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        try:
            connection.request("GET", "/healthz")
            connection.getresponse()
            return
        except OSError:
            time.sleep(0.1)
        finally:
            connection.close()
    raise RuntimeError("the API did not start")


def main() -> None:
    """Prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mebibytes", type=int, nargs="?", default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, default=8765)
    options = parser.parse_args()
    with temporary_folder() as name, api_process(Path(name), options.port) as server:
        folder = Path(name)
        path = random_file(folder / "file", options.mebibytes)
        ours, theirs, down = [], [], []
        model_id = ""
        for _ in range(options.rounds):
            theirs.append(_timed(lambda: yardstick(path, folder / "copy")))

            def upload() -> None:
                nonlocal model_id
                model_id = send(server.url, path)

            ours.append(_timed(upload))
            down.append(_timed(lambda: fetch(server, model_id)))
        rate = options.mebibytes / statistics.median(down)
        print(f"cp + sha256   {statistics.median(theirs):6.2f} s")
        print(f"upload        {statistics.median(ours):6.2f} s")
        print(f"ratio         {statistics.median(ours) / statistics.median(theirs):6.2f}   (aim: at most 2)")
        print(f"download      {rate:6.0f} MiB/s")
        print(f"API's memory  {server.peak_bytes() / MIB:6.0f} MiB (aim: at most 200)")


if __name__ == "__main__":
    main()
