"""The measuring process: opens one exported file in its runtime and runs it, and nothing else.

``python -m worker.engine.measure.process`` reads one JSON request per line from standard input and answers each with
JSON lines, the last of which has ``done``. It is started by `worker.engine.measure.remote`, ends with its input, and
loads no torch unless the runtime is torch, so that memory and times are those of the runtime.
"""

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib.format import open_memmap

from worker.engine.data.samples import Array, Samples
from worker.engine.runtimes import SESSIONS, Session

#: Shortest time between two signs of life, in seconds.
_ALIVE_S = 0.5
_PR_SET_PDEATHSIG = 1

Answer = dict[str, Any]


class Measurement:
    """One open file and the samples it is measured on."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._samples = Samples({})

    def open(self, request: Answer) -> Iterator[Answer]:
        """Open ``path`` in the runtime of ``target`` with ``threads`` threads, in place of what was open.

        ``exact`` keeps float arithmetic in float32 where the runtime would choose less.
        """
        started = time.perf_counter()
        self._session = SESSIONS[request["target"]](Path(request["path"]), request["threads"], request["exact"])
        yield {"done": True, "seconds": time.perf_counter() - started}

    def load(self, request: Answer) -> Iterator[Answer]:
        """Map the ``inputs``: name -> where the array lies."""
        self._samples = Samples({name: _mapped(**where) for name, where in request["inputs"].items()})
        yield {"done": True}

    def run(self, request: Answer) -> Iterator[Answer]:
        """Run all samples, ``batch`` at a time; each output goes to a ``.npy`` in ``folder``."""
        session, folder = self._opened(), Path(request["folder"])
        outputs: list[Any] = []
        done, told = 0, time.monotonic()
        for inputs in self._samples.batches(request["batch"]):
            count = len(next(iter(inputs.values())))
            results = [_per_sample(result, count) for result in session.run(inputs)]
            outputs = outputs or [self._output(folder, index, result) for index, result in enumerate(results)]
            for output, result in zip(outputs, results, strict=True):
                output[done : done + count] = result
            done += count
            if time.monotonic() - told > _ALIVE_S:
                told = time.monotonic()
                yield {"ran": done}
        for output in outputs:
            output.flush()
        yield {"done": True, "outputs": [str(output.filename) for output in outputs]}

    def time(self, request: Answer) -> Iterator[Answer]:
        """Time runs of the first ``batch`` samples: at least ``least``, at most ``most``, about ``seconds`` long.

        The first ``warm`` runs are not counted.
        """
        session = self._opened()
        taken: list[float] = []
        inputs = next(self._samples.batches(request["batch"]))
        for _ in range(request["warm"]):
            session.run(inputs)
        end = time.perf_counter() + request["seconds"]
        while len(taken) < request["most"] and (len(taken) < request["least"] or time.perf_counter() < end):
            started = time.perf_counter()
            session.run(inputs)
            taken.append(time.perf_counter() - started)
        yield {"done": True, "seconds": taken}

    def memory(self, _request: Answer) -> Iterator[Answer]:
        """The most memory this process has held so far, in bytes (VmHWM of proc(5))."""
        lines = Path("/proc/self/status").read_text().splitlines()
        kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
        yield {"done": True, "bytes": kilobytes * 1024}

    def _opened(self) -> Session:
        if self._session is None:
            raise ValueError("open a file first")
        return self._session

    def _output(self, folder: Path, index: int, first: Array) -> Any:
        shape = (len(self._samples), *first.shape[1:])
        return open_memmap(folder / f"output-{index}.npy", mode="w+", dtype=first.dtype, shape=shape)


def _mapped(path: str, offset: int, dtype: str, shape: list[int], order: Any) -> Array:
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=tuple(shape), order=order)


def _per_sample(result: Array, count: int) -> Array:
    """The result with the samples as its first dimension."""
    if result.ndim and len(result) == count:
        return result
    if count == 1:
        return result[None]
    raise ValueError(f"an output has shape {result.shape} for {count} samples")


def serve(requests: IO[str], answers: IO[str]) -> int:
    """Answer requests until the input ends; 1 where one of them failed."""
    measurement = Measurement()
    operations: dict[str, Callable[[Answer], Iterator[Answer]]] = {
        name: getattr(measurement, name) for name in ("open", "load", "run", "time", "memory")
    }
    for line in iter(requests.readline, ""):
        request = json.loads(line)
        try:
            for answer in operations[request["do"]](request):
                answers.write(json.dumps(answer) + "\n")
                answers.flush()
        except Exception as error:  # noqa: BLE001 - runtimes raise what they like; the parent tells the user
            answers.write(json.dumps({"error": f"{type(error).__name__}: {error}"[:4000]}) + "\n")
            answers.flush()
            return 1
    return 0


def main() -> int:
    """Serve on standard input and output; what runtimes print goes to standard error."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        return serve(sys.stdin, answers)


if __name__ == "__main__":
    sys.exit(main())
