"""The group `jobs`."""

import json
from typing import Annotated, Any

import typer
from rich.text import Text

from modelpress import Client, JobRequest
from modelpress.cli import exits, report, text
from modelpress.cli.follow import follow
from modelpress.cli.listing import Id, Json, Noun, show_done
from modelpress.cli.output import console, printable, say, show_json

RequestFile = Annotated[typer.FileText, typer.Argument(metavar="FILE", help="The request as JSON; - is stdin.")]

jobs = typer.Typer(no_args_is_help=True, help="Compression jobs.")

_jobs = Noun(
    jobs,
    {
        "id": lambda job: job.id,
        "name": lambda job: job.name,
        "state": lambda job: job.state,
        "progress": lambda job: None if job.progress is None else f"{job.progress:.0%}".replace("%", " %"),
        "targets": lambda job: ", ".join(job.targets),
        "created": lambda job: text.when(job.created_at),
        "error": lambda job: job.error.code if job.error else None,
    },
)
_jobs.listed(lambda client: client.jobs)
_jobs.shown(lambda client: client.jobs)
_jobs.deleted(lambda client: client.jobs)


def _request(file: typer.FileText) -> JobRequest:
    """What a job is asked for by, as `POST /v1/jobs` takes it."""
    try:
        body: Any = json.load(file)
        return JobRequest(**body)
    except (ValueError, TypeError) as error:  # no JSON, a field that there is not, or one that is missing
        why = str(error).removeprefix("JobRequest.__init__() ")
        raise typer.BadParameter(f"{file.name}: {why}; see `modelpress jobs create --help`") from error


@jobs.command("create")
def create_job(file: RequestFile, as_json: Json = False) -> None:
    """Queues a job and prints its id, without waiting for it.

    FILE holds what POST /v1/jobs takes: model_id, recipe, targets, and whatever else the job needs.
    """
    with Client() as client:
        job = client.jobs.create(_request(file))
    if as_json:
        show_json(job.raw)
    else:
        console().print(Text(printable(job.id)))


@jobs.command("estimate")
def estimate_job(file: RequestFile, as_json: Json = False) -> None:
    """Tells what a job would come to, without queueing it: size, memory, time."""
    with Client() as client:
        estimate = client.jobs.estimate(_request(file))
    if as_json:
        show_json(estimate.raw)
        return
    for label, figure in report.estimated(estimate):
        console().print(Text(printable(f"{label}: {figure}")))
    report.show_notes(console(), estimate.notes or ())


@jobs.command("follow")
def follow_job(id: Id, as_json: Json = False) -> None:
    """Follows a job to its end; the exit code tells how it ended. Ctrl-C leaves it running."""
    with Client() as client:
        job = follow(client, id, cancel_on_interrupt=False)
    if as_json:
        show_json(job.raw)
    else:
        report.show(console(), job)
        if job.error is not None:
            say(f"job {job.state}: {job.error.detail} [{job.error.code}]", "red")
    raise typer.Exit(exits.of(job))


@jobs.command("report")
def report_job(id: Id, as_json: Json = False) -> None:
    """Prints the before/after table of a finished job."""
    with Client() as client:
        job = client.jobs.get(id)
    if as_json:
        show_json({name: job.raw.get(name) for name in ("id", "state", "metrics", "gate")})
    else:
        report.show(console(), job)


@jobs.command("logs")
def job_logs(id: Id, as_json: Json = False) -> None:
    """Prints its log so far."""
    with Client() as client:
        logs = client.jobs.logs(id)
    if as_json:
        show_json({"id": id, "logs": logs})
    else:
        console().print(printable(logs), end="")


@jobs.command("cancel")
def cancel_job(id: Id, as_json: Json = False) -> None:
    """Asks it to end."""
    with Client() as client:
        job = client.jobs.cancel(id)
    show_done(f"job {job.state}", job.raw, as_json=as_json)


@jobs.command("retry")
def retry_job(id: Id, as_json: Json = False) -> None:
    """Tries a failed or canceled job once more, from its last checkpoint."""
    with Client() as client:
        job = client.jobs.retry(id)
    show_done(f"job {job.state}", job.raw, as_json=as_json)
