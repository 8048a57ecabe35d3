"""What the command's exit codes mean; docs/client.md lists the same."""

from enum import IntEnum

from modelpress.views import Job


class ExitCode(IntEnum):
    """Exit codes of every command."""

    OK = 0
    #: The job failed or was canceled.
    JOB_FAILED = 1
    #: Wrong arguments, no key, or a local file that cannot be read or written.
    USAGE = 2
    #: The job ran to its end, but its artifact breaks a limit (`limits_not_met`).
    LIMITS_NOT_MET = 3
    #: The service refused the request, could not be reached, or sent what cannot be used; `check` says it will refuse.
    SERVICE = 4
    #: Left by Ctrl-C; a job that was started may go on.
    INTERRUPTED = 130


def of(job: Job) -> ExitCode:
    """The exit code that tells how a finished job ended."""
    if job.state == "succeeded":
        return ExitCode.OK
    if job.error is not None and job.error.code == "limits_not_met":
        return ExitCode.LIMITS_NOT_MET
    return ExitCode.JOB_FAILED
