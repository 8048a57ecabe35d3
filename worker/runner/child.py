"""The job's own process: ``python -m worker.runner.child FOLDER``.

Reads the assignment from the folder, does it, and reports on the pipe `REPORT_FD`. The walls of the sandbox stand
before this starts (`worker.runner.launch`). It ends with exit code 0 after a `Result` or a `Failure`; any other end
is a crash.
"""

import errno
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from app.lifetime import die_with
from worker.engine.errors import EngineError, UserError
from worker.runner.folder import DISK_FULL
from worker.runner.messages import ASSIGNMENT, MEASURE_LOCK_FD, REPORT_FD, Assignment, Failure, Result
from worker.runner.reporting import PipeReporter, regular_file

#: Kind of assignment -> module with ``do(assignment, reporter)``. Loaded when it is known which: the check of a
#: dataset, which users wait for, does without the seconds and the memory that torch takes to load.
WORK = {
    "check_dataset": "worker.runner.work.check_dataset",
    "check_model": "worker.runner.work.check_model",
    "compress": "worker.runner.work.compress",
}
_MAX_DETAIL = 4000
#: What allocators of the runtimes say; Python's own is a MemoryError.
_OUT_OF_MEMORY = ("bad_alloc", "out of memory", "not enough memory", "can't allocate memory", "failed to allocate")


def main(folder: Path) -> int:
    """Do the assignment in `folder`; 0 once its outcome is reported."""
    die_with(os.getppid(), signal.SIGKILL)
    assignment = Assignment.model_validate_json((folder / ASSIGNMENT).read_bytes())
    reporter = PipeReporter(REPORT_FD, regular_file(MEASURE_LOCK_FD), assignment.output)
    reporter.send(outcome(folder, assignment, reporter))
    return 0


def outcome(folder: Path, assignment: Assignment, reporter: PipeReporter) -> Result | Failure:
    """What the assignment came to; never raises for a fault of the job."""
    try:
        do: Callable[[Assignment, PipeReporter], Result] = importlib.import_module(WORK[assignment.kind]).do
        return do(assignment, reporter)
    except Exception as error:  # noqa: BLE001 - the last stop of a job: whatever went wrong is its outcome
        if not isinstance(error, UserError):
            traceback.print_exc(file=sys.stderr)
        return _failure(error, folder)


def _failure(error: Exception, folder: Path) -> Failure:
    if isinstance(error, EngineError):
        detail = error.detail.replace(f"{folder}{os.sep}", "")[:_MAX_DETAIL]
        return Failure(code=error.code, detail=detail, user=isinstance(error, UserError))
    if _lacks_memory(error):
        detail = "The job needed more memory than it may use. Give it fewer or smaller samples, or a larger worker."
        return Failure(code="out_of_memory", detail=detail, user=False)
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        detail = "The disk of the work folder is full; free some space and retry, or ask the operator to."
        return Failure(code="storage_full", detail=detail, user=False)
    detail = f"The job met a fault of the service ({type(error).__name__}); the worker's log has the details."
    return Failure(code="internal_error", detail=detail, user=False)


def _lacks_memory(error: Exception) -> bool:
    """Also a file that is larger than what may be mapped: the system answers with an error of files."""
    refused = isinstance(error, OSError) and error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or refused or any(words in str(error).lower() for words in _OUT_OF_MEMORY)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
