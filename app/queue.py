"""The only place that knows Celery task names.

A message says "look", on a queue; it does not say which job. The database decides who runs what, so a message that
is lost, repeated or late does no harm.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from celery import Celery
from kombu.connection import Connection
from kombu.exceptions import OperationalError

from app.config import Settings

LOOK = "modelpress.look"
#: What a job's queue column may say, and what messages are sent on.
QUEUES = ("cpu", "gpu", "checks")

log = logging.getLogger(__name__)


def celery_app(settings: Settings) -> Celery:
    """The Celery application; producers and workers are configured alike (see docs/decisions)."""
    app = Celery("modelpress", broker=settings.broker_url)
    app.conf.update(
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        task_ignore_result=True,
        # A lost broker must not kill a job: the lease in the database says who owns it.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "visibility_timeout": 86_400,
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "socket_timeout": 5.0,
            "socket_connect_timeout": 2.0,
        },
    )
    return app


class Queue:
    """Sends look messages."""

    def __init__(self, settings: Settings) -> None:
        self._celery = celery_app(settings)
        # A request must not wait for a broker that is away: one try, not Celery's seconds of them.
        self._celery.conf.broker_transport_options |= {"max_retries": 1, "interval_start": 0, "interval_max": 0}

    async def look(self, queue: str) -> None:
        """Asks one worker of `queue` to look for a claimable job. Never fails: maintenance repeats lost looks."""
        try:
            await asyncio.to_thread(self._send, queue)
        except (OperationalError, OSError) as error:
            log.warning("look on %s was not sent: %s", queue, error)

    async def waiting(self) -> Mapping[str, int]:
        """Queue -> looks that no worker has taken yet. Raises `OperationalError` or OSError without a broker."""
        return await asyncio.to_thread(self._waiting)

    async def ping(self) -> None:
        """Raises `OperationalError` or OSError where the broker does not answer."""
        await asyncio.to_thread(self._ping)

    def _ping(self) -> None:
        with self._connection():
            pass

    def _waiting(self) -> Mapping[str, int]:
        with self._connection() as connection:
            try:
                channel = connection.default_channel
                declare: Callable[..., Any] = channel.queue_declare
                return {name: declare(queue=name).message_count for name in QUEUES}
            except (*connection.connection_errors, *connection.channel_errors) as error:
                raise OperationalError(str(error)) from error

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        with self._celery.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=2)
            yield connection

    def _send(self, queue: str) -> None:
        # Without an expiry, which would compare the clocks of two machines: a spare look costs little.
        self._celery.send_task(LOOK, queue=queue, retry=False)
