"""The main job from end to end, as a user would run it: `make demo`.

Trains a small CNN (benchmarks/digits.py; kept under .demo/ for the next time), starts the embedded service, and lets
the command line client compress the network for two runtimes. What is printed, and the exit status, are the
client's own; every figure was measured by the service. Nothing stays running.

``python benchmarks/demo.py FOLDER`` keeps what it makes in FOLDER instead of .demo/.
"""

import ctypes
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import NoReturn
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

ROOT = Path(__file__).parent.parent
HOME = Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else ROOT / ".demo"
TRAINING = Path(__file__).with_name("digits.py")
SCRIPTS = Path(sys.executable).parent
READY_S = 90.0
STOP_S = 20.0
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)

Process = subprocess.Popen[bytes]


class DemoError(Exception):
    """Why the demo cannot go on, in a sentence."""


def main() -> int:
    """Runs the demo and returns the client's exit status."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        files = trained()
        with service() as (url, key):
            return compress(files, {"MODELPRESS_URL": url, "MODELPRESS_KEY": key})
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def trained() -> Path:
    """The folder with the trained model and its data; trained once for each version of the training code."""
    told = TRAINING.read_bytes() + version("torch").encode() + version("scikit-learn").encode()
    folder = HOME / f"digits-{hashlib.sha256(told).hexdigest()[:16]}"
    if not folder.exists():
        say("Training a CNN on scikit-learn's handwritten digits ...")
        unfinished = HOME / f"unfinished-{os.getpid()}"
        unfinished.mkdir(parents=True)
        try:
            if wait(start([sys.executable, TRAINING, unfinished], dict(os.environ))) != 0:
                raise DemoError("the training failed")
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder


@contextmanager
def service() -> Iterator[tuple[str, str]]:
    """A running service with its data in .demo/data; yields its URL and a key."""
    data, log = HOME / "data", HOME / "service.log"
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    say("Starting the service ...")
    # The embedded service, whatever settings of another one the shell may have.
    env = {name: value for name, value in os.environ.items() if not name.startswith("MODELPRESS_")}
    command: list[str | Path] = [
        SCRIPTS / "modelpress-server",
        "up",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--data",
        data,
    ]
    started = time.monotonic()
    process = start(command, env, log)
    try:
        wait_until_ready(process, url, log)
        say(f"Ready after {time.monotonic() - started:.1f} s.")
        yield url, (data / "admin.key").read_text().strip()
    finally:
        stop(process)


def wait_until_ready(process: Process, url: str, log: Path) -> None:
    """Returns once `/readyz` answers 200: API, database, queue and a worker are there."""
    opener = build_opener(ProxyHandler({}))
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise DemoError(f"the service ended with status {process.returncode}:\n{tail(log)}")
        try:
            with opener.open(f"{url}/readyz", timeout=5):
                return
        except (URLError, OSError):  # not listening yet, or 503
            time.sleep(0.1)
    raise DemoError(f"the service was not ready after {READY_S:g} s:\n{tail(log)}")


def compress(files: Path, settings: dict[str, str]) -> int:
    """The main job, through the command line client."""
    command: list[str | Path] = [
        SCRIPTS / "modelpress", "compress", files / "model.pt2",
        "--calibration", files / "calibration.npz", "--evaluation", files / "evaluation.npz",
        "--method", "quantize.static", "--target", "onnxruntime", "--target", "openvino",
        "--max-drop", "0.01", "--max-size-ratio", "0.30", "-o", HOME / "out",
    ]  # fmt: skip
    shown = (os.path.relpath(part) if isinstance(part, Path) else part for part in command[1:])
    say(" ".join(["$ modelpress", *shown]))
    # Loopback needs no proxy.
    return wait(start(command, {**os.environ, **settings, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}))


def start(command: list[str | Path], env: dict[str, str], log: Path | None = None) -> Process:
    """Starts a child in a process group of its own, so that Ctrl-C reaches it only as we decide.

    The kernel ends it with us, whatever happens to us.
    """
    if log is None:
        return subprocess.Popen(command, env=env, process_group=0, preexec_fn=_die_with_parent)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        return subprocess.Popen(
            command, env=env, process_group=0, preexec_fn=_die_with_parent, stdout=output, stderr=subprocess.STDOUT
        )


def wait(process: Process) -> int:
    """The child's exit status; Ctrl-C is passed on to it, and what it does then is up to it."""
    try:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                process.send_signal(signal.SIGINT)
    finally:
        stop(process)


def stop(process: Process) -> None:
    """Ends a child that still runs, and waits for it."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tail(log: Path) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])


def say(text: str) -> None:
    """A line of the demo's own."""
    print(text, flush=True)


def _die_with_parent() -> None:
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
