"""A shell and a Python that keep their state from one block of a page to the next."""

import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

PYTHON = Path(__file__).with_name("python_session.py")
#: Sources each file that it is told, leaves what is exported for the Python, and says when it is through; stops at the
#: first failing command.
SHELL = 'while IFS= read -r block; do . "$block" </dev/null; env -0 >"$1"; printf "\\n%s\\n" "$0"; done'
#: Most that one block may take.
PATIENCE_S = 240.0


class BlockError(Exception):
    """A block failed; the message is what it printed."""


class Session:
    """A process that runs one block after the other, in a process group of its own."""

    def __init__(self, language: str, folder: Path, env: Mapping[str, str], python: str = sys.executable) -> None:
        self._mark = f"block-{secrets.token_hex(8)}-is-through"
        self._blocks = folder.with_name(f"{folder.name}.{language}")
        self._blocks.mkdir()
        exported = str(folder.with_name(f"{folder.name}.exported"))
        command = {
            "sh": ["bash", "--noprofile", "--norc", "-euo", "pipefail", "-c", SHELL, self._mark, exported],
            "python": [python, "-u", str(PYTHON), self._mark, exported],
        }[language]
        self._count = 0
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=dict(env),
            text=True,
            start_new_session=True,
        )

    def run(self, text: str, patience_s: float = PATIENCE_S) -> str:
        """Runs a block; what it printed.

        Raises:
            BlockError: it failed, or took longer than `patience_s`.
        """
        self._count += 1
        file = self._blocks / f"block-{self._count}"
        file.write_text(text, "utf-8")
        assert self._process.stdin and self._process.stdout
        printed: list[str] = []
        alarm = threading.Timer(patience_s, self._kill)
        alarm.start()
        try:
            self._process.stdin.write(f"{file}\n")
            self._process.stdin.flush()
            for line in self._process.stdout:
                if line.strip() == self._mark:
                    return "".join(printed)
                printed.append(line)
        except BrokenPipeError:
            printed.append("the session ended in an earlier block")
        finally:
            alarm.cancel()
        raise BlockError("".join(printed) + f"(exit status {self._process.wait()})")

    def close(self) -> None:
        """Ends the session, and whatever it left in the background."""
        assert self._process.stdin and self._process.stdout
        self._kill()
        self._process.wait()
        self._process.stdout.close()
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
