"""A receiver of webhooks: it verifies, takes each delivery in once, answers at once and works afterwards.

    pip install standardwebhooks
    WEBHOOK_SECRET=whsec_... python webhook_receiver.py

Deliveries lie in SQLite before they are answered, so that one whose work was cut off is done at the next start.
"""

import json
import logging
import os
import sqlite3
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

MOST_BYTES = 1024**2
Handle = Callable[[dict[str, Any]], None]
log = logging.getLogger("receiver")


class Inbox:
    """What was delivered, by `webhook-id`: the same for every attempt of a delivery."""

    def __init__(self, path: Path | str) -> None:
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.execute("CREATE TABLE IF NOT EXISTS inbox (id TEXT PRIMARY KEY, body TEXT, done INTEGER)")

    def put(self, id: str, body: str) -> bool:
        """Keeps a delivery; False where it was there before."""
        return self._run("INSERT OR IGNORE INTO inbox VALUES (?, ?, 0)", id, body).rowcount == 1

    def waiting(self) -> list[tuple[str, str]]:
        """Id and body of what is not done."""
        return self._run("SELECT id, body FROM inbox WHERE NOT done ORDER BY rowid").fetchall()

    def finish(self, id: str) -> None:
        """Marks a delivery as done."""
        self._run("UPDATE inbox SET done = 1 WHERE id = ?", id)

    def _run(self, statement: str, *values: str) -> sqlite3.Cursor:
        with self._lock:
            return self._database.execute(statement, values)


class Server(ThreadingHTTPServer):
    """Takes deliveries in, and has `handle` work on them one by one in a thread of its own."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], verifier: Webhook, inbox: Inbox, handle: Handle) -> None:
        self.verifier, self.inbox, self._handle = verifier, inbox, handle
        self.news = threading.Event()
        self.ends = False
        self.news.set()  # what an earlier process has left
        super().__init__(address, Receiver)
        self._worker = threading.Thread(target=self._work)
        self._worker.start()

    def server_close(self) -> None:
        """Ends when the delivery in hand is done."""
        super().server_close()
        self.ends = True
        self.news.set()
        self._worker.join()

    def _work(self) -> None:
        while not self.ends:
            self.news.wait()
            self.news.clear()
            for id, body in self.inbox.waiting():
                if self.ends:
                    return
                try:
                    self._handle(json.loads(body))
                except Exception:
                    log.exception("delivery %s is tried again at the next start", id)
                    continue
                self.inbox.finish(id)


class Receiver(BaseHTTPRequestHandler):
    """One request."""

    server: Server

    def do_POST(self) -> None:
        """204 for what the secret has signed, the first time and every other; 401 for everything else."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MOST_BYTES:
            self.send_error(413)
            return
        body = self.rfile.read(int(length))  # as it came: the signature is over these bytes
        try:
            self.server.verifier.verify(body, {name.lower(): value for name, value in self.headers.items()})
        except (WebhookVerificationError, ValueError):  # ValueError: no text, or no base64
            self.send_error(401)
            return
        if self.server.inbox.put(self.headers["webhook-id"], body.decode()):
            self.server.news.set()
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """To the log, not to stderr."""
        log.info(format, *args)


def tell(message: dict[str, Any]) -> None:
    """Your own work goes here; it may take as long as it needs."""
    job = message["data"]
    log.warning("%s: %s, gate %s", message["type"], job["id"], job.get("gate"))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    secret = Webhook(os.environ["WEBHOOK_SECRET"])
    with Server(("127.0.0.1", 8080), secret, Inbox("inbox.sqlite"), tell) as server:
        server.serve_forever()
