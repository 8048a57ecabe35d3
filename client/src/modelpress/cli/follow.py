"""Following a job to its end; Ctrl-C asks the service to cancel it."""

from modelpress import Client, Conflict, Job
from modelpress.cli.screen import JobScreen


def follow(client: Client, job_id: str, *, cancel_on_interrupt: bool) -> Job:
    """Shows the job until it has finished and answers it.

    The first Ctrl-C cancels the job where `cancel_on_interrupt` and goes on watching; the second leaves.
    """
    last: str | None = None
    may_cancel = cancel_on_interrupt
    with JobScreen() as screen:
        while True:
            try:
                for event in client.jobs.events(job_id, after=last):
                    last = event.id
                    screen.event(event)
                return client.jobs.get(job_id)
            except KeyboardInterrupt:
                if not may_cancel:
                    screen.line(f"left; the job goes on: modelpress jobs follow {job_id}")
                    raise
                may_cancel = False
                screen.line("canceling the job; Ctrl-C again leaves without waiting", "yellow")
                try:
                    client.jobs.cancel(job_id)
                except Conflict as conflict:
                    screen.line(conflict.detail)
