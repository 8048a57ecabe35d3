"""Follows docs/tutorial.md word for word, from a fresh clone and environment, and tells how long it took.

``python -m benchmarks.tutorial [FOLDER] [--make-args ARGS]`` clones this repository into FOLDER (a temporary one where
none is given), runs every block of the page in order, and prints the seconds of each, the minutes until the first
artifact is there, and what had to be typed until then. Commands are counted as typed, character for character, at five
in a second; a block of Python is pasted, for which six keystrokes are counted (copy, switch the window, paste). Only
the port differs from the page.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

from benchmarks.demo import free_port
from tests.support.docs.blocks import Block, read_page
from tests.support.docs.runner import ADDRESS
from tests.support.docs.sessions import Session

ROOT = Path(__file__).parents[1]
PER_SECOND = 5
PASTED = 6
PATIENCE_S = 1800.0


def main() -> int:
    """Follows the page; its last line is the answer."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--make-args", default="", help="added to make: TORCH_ARGS=... for another build of PyTorch")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="modelpress-tutorial-"))
    try:
        follow(folder / "modelpress", options.make_args)
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


def follow(clone: Path, make_args: str) -> None:
    """Clones, and runs the blocks of the page in the clone."""
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(clone)], check=True)
    first, *rest = read_page(clone / "docs/tutorial.md").blocks
    url = f"http://127.0.0.1:{free_port()}"
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MODELPRESS_", "PYTHON"))}
    env |= {"MODELPRESS_URL": url, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "COLUMNS": "120"}
    started = time.monotonic()
    typed, told = len(first.text), False
    with service(first, clone, env, url, make_args):
        say(f"{time.monotonic() - started:6.1f} s  line {first.line}: the environment, and the service is ready")
        python = str(clone / ".venv/bin/python")
        with closing(Session("sh", clone, env)) as shell, closing(Session("python", clone, env, python)) as interpreter:
            for block in rest:
                begun = time.monotonic()
                session = shell if block.language == "sh" else interpreter
                output = session.run(block.text.replace(ADDRESS, url))
                say(f"{time.monotonic() - begun:6.1f} s  line {block.line}: {block.language}\n{output.strip()}")
                if not told:
                    typed += len(block.text) if block.language == "sh" else PASTED
                    told = tell(clone, time.monotonic() - started, typed)


def tell(clone: Path, seconds: float, typed: int) -> bool:
    """Says how long it took, once the first artifact is there."""
    if not list(clone.glob("out/*.onnx")):
        return False
    typing = typed / PER_SECOND
    say(
        f"first artifact after {(seconds + typing) / 60:.1f} minutes: {seconds:.0f} s of waiting "
        f"and {typing:.0f} s of typing ({typed} characters)"
    )
    return True


@contextmanager
def service(block: Block, clone: Path, env: dict[str, str], url: str, make_args: str) -> Iterator[None]:
    """What the first terminal runs, until the page has been followed."""
    command = f"{block.text.strip()} {make_args} ARGS='--port {url.rpartition(':')[2]}'"
    process = subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=clone, env=env, start_new_session=True)
    try:
        wait_until_ready(process, url)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def wait_until_ready(process: "subprocess.Popen[bytes]", url: str) -> None:
    """Returns once the service is ready."""
    opener = build_opener(ProxyHandler({}))
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"make up ended with status {process.returncode}")
        try:
            with opener.open(f"{url}/readyz", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(f"the service was not ready after {PATIENCE_S:g} s")


def say(text: str) -> None:
    """A line, at once."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
