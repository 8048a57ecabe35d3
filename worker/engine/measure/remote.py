"""Starts measuring processes and talks to them: a crash, a hang or an error of a runtime is a `RuntimeFailure`."""

import json
import mmap
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

import worker
from worker.engine.data.samples import Array
from worker.engine.errors import RuntimeFailure

#: Longest silence of a measuring process, in seconds: loading and compiling, or one batch.
SILENCE_S = 600.0
_TAIL = 1500
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Remote:
    """One exported file, open in its runtime in a fresh process.

    Args:
        target: the runtime.
        path: the exported file.
        threads: it may compute with.
        folder: scratch folder for its outputs and its log; made here.
        silence_s: it is killed when it says nothing for so long.

    Raises:
        RuntimeFailure: by every call that the runtime fails, crashes in, or does not answer.
    """

    def __init__(self, target: str, path: Path, threads: int, folder: Path, silence_s: float = SILENCE_S) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.target, self._folder, self._silence_s = target, folder, silence_s
        self._log = folder / "log.txt"
        self._buffer = b""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "worker.engine.measure.process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=_environment(threads, folder),
            )
        self._request = {"do": "open", "target": target, "path": str(path), "threads": threads}

    def __enter__(self) -> Self:
        try:
            self.open()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def open(self, *, exact: bool = False) -> None:
        """Open the file as users get it; `exact`: again, with float arithmetic in float32 throughout."""
        self._ask({**self._request, "exact": exact})

    def load(self, inputs: Mapping[str, Array]) -> None:
        """Give it the samples: name -> (samples, ...). What is memory-mapped is shared, the rest goes by file."""
        described = {
            name: _described(array, self._folder / f"input-{index}.npy")
            for index, (name, array) in enumerate(inputs.items())
        }
        self._ask({"do": "load", "inputs": described})

    def run(self, batch: int, progress: Callable[[int], None] = lambda ran: None) -> list[Array]:
        """Run all samples; each output as a memory-mapped array (samples, ...).

        Args:
            batch: samples at a time.
            progress: called with the number of samples that ran.
        """
        answer = self._ask({"do": "run", "batch": batch, "folder": str(self._folder)}, progress)
        return [np.load(path, mmap_mode="r", allow_pickle=False) for path in answer["outputs"]]

    def time(self, batch: int, *, seconds: float, least: int, most: int, warm: int = 2) -> list[float]:
        """Seconds that single runs of `batch` samples took; see `Measurement.time`."""
        request = {"do": "time", "batch": batch, "seconds": seconds, "least": least, "most": most, "warm": warm}
        return list(self._ask(request)["seconds"])

    def peak_memory(self) -> int:
        """Bytes that the process held at most so far."""
        return int(self._ask({"do": "memory"})["bytes"])

    def _ask(self, request: dict[str, Any], progress: Callable[[int], None] = lambda ran: None) -> dict[str, Any]:
        stdin = self._process.stdin
        if stdin is None:
            raise ValueError("a measuring process has pipes")
        try:
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()
        except BrokenPipeError:
            raise self._crashed() from None
        while True:
            answer: dict[str, Any] = json.loads(self._line(str(request["do"])))
            if "error" in answer:
                raise RuntimeFailure(
                    "runtime_failed", f"{self.target} could not {request['do']} the exported file: {answer['error']}"
                )
            if "done" in answer:
                return answer
            progress(answer["ran"])

    def _line(self, doing: str) -> bytes:
        stdout = self._process.stdout
        if stdout is None:
            raise ValueError("a measuring process has pipes")
        deadline = time.monotonic() + self._silence_s
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self._end()
                    raise RuntimeFailure(
                        "runtime_timeout",
                        f"{self.target} gave no sign of life for {self._silence_s:g} s (to {doing} the exported file).",
                    )
                chunk = os.read(stdout.fileno(), 65_536)
                if not chunk:
                    raise self._crashed()
                self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _crashed(self) -> RuntimeFailure:
        code = self._process.wait()
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        log = self._log.read_bytes()[-_TAIL:].decode(errors="replace").strip()
        return RuntimeFailure("runtime_crashed", f"The process that runs the file in {self.target} {how}. {log}")

    def _end(self) -> None:
        """The process has nothing to save: it is killed, so that not even a hanging one is waited for."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except BrokenPipeError:  # a request that a dead process never read
                    continue


def _environment(threads: int, folder: Path) -> dict[str, str]:
    """This process's environment; the package is found where this one was, whatever the working folder."""
    root = str(Path(worker.__file__).resolve().parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {"PYTHONPATH": os.pathsep.join(paths), "TMPDIR": str(folder)}
    return {**os.environ, **dict.fromkeys(_THREADS, str(threads)), **own}


def _described(array: Array, file: Path) -> dict[str, Any]:
    """Where the array lies, for `np.memmap`; one that is in memory, or part of a mapping, is written to `file`."""
    if not (isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap) and array.filename is not None):
        np.save(file, array, allow_pickle=False)
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.memmap):  # numpy maps no file without elements
        raise ValueError("an input needs samples")
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    return {
        "path": str(array.filename),
        "offset": array.offset,
        "dtype": array.dtype.str,
        "shape": list(array.shape),
        "order": order,
    }
