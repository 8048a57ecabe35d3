"""The Celery worker: ``python -m celery -A worker.main worker -Q QUEUE -c SLOTS -n QUEUE@%h``.

One process serves one queue (``cpu``, ``gpu`` or ``checks``), so that checks never wait behind long jobs; its pool
forks one slot per ``-c``. ``modelpress-server worker`` starts it like this, ``python -m worker QUEUE`` too.
Imports no runtime: only a job's own process does.

Life of the process: before the pool forks, the `Slot` is made (machine, walls of the sandbox, leftovers swept); a queue
that cannot be served ends the worker with a sentence. When ready, a thread keeps it among the live workers. On SIGTERM
its slots give their jobs back (`Shutdown`), and Celery ends when they are done.
"""

import logging
import sys
from dataclasses import dataclass
from typing import Any

from celery import signals

from app import logs, tracing
from app.config import get_settings
from app.queue import LOOK, celery_app
from worker import tasks
from worker.runner.capabilities import CannotServeError
from worker.runner.presence import Presence, Shutdown
from worker.runner.slot import Slot, open_slot

log = logging.getLogger(__name__)

app = celery_app(get_settings())
app.conf.update(
    worker_redirect_stdouts=False,
    worker_send_task_events=False,
)


@dataclass
class _Process:
    """What this process is; filled in before the pool forks, so that every slot has it."""

    slot: Slot | None = None
    shutdown: Shutdown | None = None
    presence: Presence | None = None


_process = _Process()


@app.task(name=LOOK)  # type: ignore[untyped-decorator]
def look() -> None:
    """Runs what is claimable."""
    if _process.slot is None or _process.shutdown is None:
        raise RuntimeError("a look outside a worker: start one with modelpress-server worker")
    tasks.look(_process.slot, _process.shutdown)


@signals.celeryd_init.connect  # type: ignore[untyped-decorator]
@signals.setup_logging.connect  # type: ignore[untyped-decorator]
def _set_up_logs(**_: object) -> None:
    """Before the first line; and instead of Celery's own set-up, which is left out where somebody listens."""
    logs.setup(get_settings())
    # Looks are cheap and say nothing: what happened is in the lines of the job.
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)


@signals.celeryd_after_setup.connect  # type: ignore[untyped-decorator]
def _open(instance: Any, **_: object) -> None:
    queues = sorted(instance.app.amqp.queues.consume_from)
    try:
        if len(queues) != 1:
            raise CannotServeError(f"a worker serves one queue, not {', '.join(queues)}; start one for each (-Q)")
        _process.slot = open_slot(get_settings(), queues[0])
    except CannotServeError as error:
        # Celery swallows a handler's exceptions and the text of an exit.
        sys.stderr.write(f"modelpress worker: {error}\n")
        raise SystemExit(1) from None
    _process.shutdown = Shutdown()
    _process.presence = Presence(_process.slot)


@signals.worker_process_init.connect  # type: ignore[untyped-decorator]
def _enter_slot(**_: object) -> None:
    tracing.start(get_settings(), "modelpress-worker")
    if _process.shutdown is not None:
        _process.shutdown.enter_slot()


@signals.worker_process_shutdown.connect  # type: ignore[untyped-decorator]
def _leave_slot(**_: object) -> None:
    tracing.stop()


@signals.worker_ready.connect  # type: ignore[untyped-decorator]
def _ready(**_: object) -> None:
    if _process.presence is not None:
        _process.presence.start()


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _shutting_down(**_: object) -> None:
    if _process.shutdown is not None:
        _process.shutdown.announce()


@signals.worker_shutdown.connect  # type: ignore[untyped-decorator]
def _shut_down(**_: object) -> None:
    if _process.presence is not None:
        _process.presence.stop()
