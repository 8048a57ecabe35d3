"""A client of the HTTP API with nothing of the SDK: what the contract says, in a few lines."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx

TERMINAL = ("succeeded", "failed", "canceled")


class Api:
    """Calls as any client would make them."""

    def __init__(self, url: str, key: str) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        self.http = httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False)

    def upload(self, noun: str, content: bytes, filename: str, **fields: str) -> dict[str, Any]:
        """Uploads a model or dataset; its view."""
        fields = {"name": filename, **fields}
        answer = self.http.post(f"/v1/{noun}", data=fields, files={"file": (filename, content)})
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def checked(self, noun: str, content: bytes, filename: str, **fields: str) -> dict[str, Any]:
        """Uploads, and waits for the end of the check."""
        identity = self.upload(noun, content, filename, **fields)["id"]
        deadline = time.monotonic() + 90
        while (view := self.get(f"/v1/{noun}/{identity}"))["state"] == "checking":
            assert time.monotonic() < deadline, view
            time.sleep(0.1)
        return view

    def get(self, path: str) -> Any:
        """JSON of a GET that succeeds."""
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post_job(self, **body: Any) -> dict[str, Any]:
        """Queues a job."""
        answer = self.http.post("/v1/jobs", json=body)
        assert answer.status_code == 202, answer.text
        assert answer.headers["Location"].endswith(answer.json()["id"])
        return dict(answer.json())

    def finished(self, job_id: str, timeout_s: float = 180) -> dict[str, Any]:
        """Polls until the job is over."""
        deadline = time.monotonic() + timeout_s
        while (view := self.get(f"/v1/jobs/{job_id}"))["state"] not in TERMINAL:
            assert time.monotonic() < deadline, view
            time.sleep(0.2)
        return dict(view)

    def events(self, job_id: str, last: int | None = None) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """Server-sent events: (id, event, data), until the stream ends."""
        headers = {"Last-Event-ID": str(last)} if last is not None else {}
        with self.http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers, timeout=180) as answer:
            assert answer.status_code == 200
            fields: dict[str, str] = {}
            for line in answer.iter_lines():
                if line:
                    name, _, value = line.partition(":")
                    fields[name] = value.strip()
                elif "data" in fields:
                    yield int(fields["id"]), fields["event"], json.loads(fields["data"])
                    fields = {}
