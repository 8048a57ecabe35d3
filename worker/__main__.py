"""``python -m worker [QUEUE] [SLOTS]``: one Celery worker for one queue, as ``modelpress-server worker`` starts it."""

import os
import sys


def command(queue: str, slots: int) -> list[str]:
    """The command line of such a worker."""
    options = ["-Q", queue, "-c", str(slots), "-n", f"{queue}@%h", "--without-mingle", "--without-gossip"]
    return [sys.executable, "-m", "celery", "--quiet", "-A", "worker.main", "worker", "--loglevel", "INFO", *options]


def main(arguments: list[str]) -> None:
    """Becomes a worker that serves a queue (cpu by default) until SIGTERM."""
    queue = arguments[0] if arguments else "cpu"
    slots = int(arguments[1]) if len(arguments) > 1 else 1
    os.execv(sys.executable, command(queue, slots))  # noqa: S606 - our own interpreter


if __name__ == "__main__":
    main(sys.argv[1:])
