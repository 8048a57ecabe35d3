"""A small real HTTP server that replays the API's contract, with faults on demand: what the client is tested on."""

import asyncio
import base64
import hashlib
import json
import threading
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

KEY = "mpk_test"
FLOAT = {
    "size_bytes": 4_000_000,
    "latency_ms": {"p50": 2.0, "p90": 2.2, "p99": 3.0},
    "metric": {"name": "accuracy", "value": 0.98, "ci95": [0.96, 0.99]},
    "evaluation": {"dataset_id": "dst_2", "samples": 719},
}
INT8 = {
    "size_bytes": 1_100_000,
    "latency_ms": {"p50": 1.0, "p90": 1.1, "p99": 1.5},
    "metric": {"name": "accuracy", "value": 0.975, "ci95": [0.955, 0.985]},
    "metric_drop": {"value": 0.005, "unit": "fraction", "ci95": [-0.001, 0.011], "lost": 5, "won": 1},
    "notes": ["onnxruntime: a sentence."],
    "fidelity": {"sqnr_db": 31.25, "cosine": 0.999, "agreement": 0.99},
    "evaluation": {"dataset_id": "dst_2", "samples": 719},
}


#: `metrics` of a job with several steps, beside the others.
STEPS = {
    "before": {
        "parameters": 1000, "nonzero_parameters": 1000, "macs": 8000, "size_bytes": 4000, "quantized_layers": 0,
        "metric": {"name": "accuracy", "value": 0.98, "samples": 500},
    },
    "steps": [
        {
            "method": "prune.channels", "seconds": 61.2,
            "parameters": 500, "nonzero_parameters": 400, "macs": 2000, "size_bytes": 2000, "quantized_layers": 0,
            "metric": {"name": "accuracy", "value": 0.95, "samples": 500}, "fidelity_db": 12.34,
            "change": {"size_ratio": 0.5, "macs_ratio": 0.25, "metric": -0.03},
        },
        {
            "method": "quantize.static", "seconds": 2.0,
            "parameters": 500, "nonzero_parameters": 400, "macs": 2000, "size_bytes": 510, "quantized_layers": 3,
            "metric": {"name": "accuracy", "value": 0.952, "samples": 500}, "fidelity_db": 12.0,
            "change": {"size_ratio": 0.255, "macs_ratio": 1.0, "metric": 0.002},
        },
    ],
}  # fmt: skip


class Cut(Exception):
    """Ends a connection in the middle of an answer."""


@dataclass
class Seen:
    """A request that arrived."""

    method: str
    path: str
    headers: dict[str, str]
    query: dict[str, str]
    json: Any = None


@dataclass
class Service:
    """What the server knows and did. `faults[path]`: answers to give first, in order."""

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    faults: dict[str, deque[Callable[[], Response]]] = field(default_factory=lambda: defaultdict(deque))
    uploads: dict[str, tuple[dict[str, str], bytes]] = field(default_factory=dict)
    job: dict[str, Any] = field(default_factory=dict)
    outcome: str = "succeeded"
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    cut_events: deque[int] = field(default_factory=deque)
    content: bytes = b""
    etag: str = '"one"'
    digest: str | None = None
    cut_content: deque[int] = field(default_factory=deque)
    cancel_ends: bool = True
    items: int = 0
    without_labels: bool = False
    steps: dict[str, Any] = field(default_factory=dict)

    def requests(self, method: str, path: str) -> list[Seen]:
        """Those that arrived so far."""
        return [one for one in self.seen if (one.method, one.path) == (method, path)]

    def refuse(self, path: str, status: int, code: str, **headers: str) -> None:
        """Lets the next request to `path` fail with a problem."""
        body = {"type": "about:blank", "title": "No", "status": status, "detail": f"because of {code}", "code": code}
        if status == 422:
            body["errors"] = [{"pointer": "/targets/0", "detail": "no target 'abacus'"}]
        made = {name.replace("_", "-"): value for name, value in headers.items()}
        self.faults[path].append(
            lambda: JSONResponse(body, status, headers=made, media_type="application/problem+json")
        )

    def lose_answer(self, path: str) -> None:
        """Lets the server act on the next request to `path`, but breaks off its answer."""
        self.faults[path].append(lambda: LostAnswer())

    def finish(self, outcome: str) -> None:
        """Ends the job."""
        error = None
        if outcome != "succeeded":
            code = "limits_not_met" if outcome == "failed" else outcome
            error = {"code": code, "detail": "the drop is 0.02, allowed 0.01"}
        state = outcome if outcome in ("succeeded", "canceled") else "failed"
        passed = outcome == "succeeded"
        hidden = ("metric", "metric_drop") if self.without_labels else ()
        self.job |= {
            "state": state,
            "progress": 1.0,
            "error": error,
            "metrics": {
                side: {"onnxruntime": {name: value for name, value in figures.items() if name not in hidden}}
                for side, figures in (("baseline", FLOAT), ("artifacts", INT8))
            }
            | {"notes": ["The data says this.", *INT8["notes"]], **self.steps},
            "gate": {
                "passed": passed,
                "checks": [
                    {
                        "target": "onnxruntime",
                        "limit": "max_metric_drop",
                        "allowed": 0.01,
                        "measured": 0.005,
                        "ci95": [-0.001, 0.011],
                        "passed": passed,
                    }
                ],
            },
            "artifacts": [] if state == "canceled" else [artifact(self)],
        }


class LostAnswer(Response):
    """Marks a request whose answer is to break off."""


def artifact(service: Service) -> dict[str, Any]:
    """The one artifact."""
    return {
        "id": "art_1",
        "job_id": "job_1",
        "target": "onnxruntime",
        "format": "onnx",
        "filename": "model.int8.onnx",
        "size_bytes": len(service.content),
        "sha256": hashlib.sha256(service.content).hexdigest(),
        "download_url": "/v1/artifacts/art_1/content",
        "a_field_of_tomorrow": True,
    }


def problem(status: int, code: str) -> Response:
    body = {"type": "about:blank", "title": "No", "status": status, "detail": f"because of {code}", "code": code}
    return JSONResponse(body, status, media_type="application/problem+json")


class Contract:
    """The handlers of the contract's paths."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def upload(self, request: Request) -> Response:
        noun = request.path_params["noun"]
        async with request.form() as form:
            content = await form["file"].read()
            fields = {name: value for name, value in form.items() if isinstance(value, str)}
            fields["filename"] = form["file"].filename
        id = f"{'mdl' if noun == 'models' else 'dst'}_{len(self.service.uploads) + 1}"
        self.service.uploads[id] = (fields, content)
        return JSONResponse(self.upload_view(id), 201)

    def upload_view(self, id: str) -> dict[str, Any]:
        fields, content = self.service.uploads[id]
        digest = hashlib.sha256(content).hexdigest()
        return {"id": id, "name": fields["name"], "state": "ready", "size_bytes": len(content), "sha256": digest,
                "created_at": "2026-01-02T03:04:05Z", "error": None}  # fmt: skip

    async def one_upload(self, request: Request) -> Response:
        id = request.path_params["id"]
        if id not in self.service.uploads:
            return problem(404, "not_found")
        if request.method == "DELETE":
            del self.service.uploads[id]
            return Response(status_code=204)
        return JSONResponse(self.upload_view(id))

    async def listing(self, request: Request) -> Response:
        first = int(request.query_params.get("cursor", "0"))
        last = min(first + 3, self.service.items)
        items = [{"id": f"mdl_{n}", "state": "ready", "name": f"n{n}"} for n in range(first, last)]
        return JSONResponse({"items": items, "next_cursor": str(last) if last < self.service.items else None})

    async def create(self, request: Request) -> Response:
        body = await request.json()
        self.service.job = {"id": "job_1", "state": "queued", "progress": 0.0, "attempt": 0, **body}
        return JSONResponse(self.service.job, 202, headers={"Retry-After": "1", "Location": "/v1/jobs/job_1"})

    async def job(self, request: Request) -> Response:
        return JSONResponse(self.service.job) if self.service.job else problem(404, "not_found")

    async def act(self, request: Request) -> Response:
        if self.service.job["state"] in ("succeeded", "failed", "canceled"):
            return problem(409, "job_already_finished")
        self.service.job["state"] = "canceling"
        if self.service.cancel_ends:
            self.service.outcome = "canceled"
        return JSONResponse(self.service.job, 202)

    async def events(self, request: Request) -> Response:
        after = int(request.headers.get("last-event-id", "0"))
        limit = self.service.cut_events.popleft() if self.service.cut_events else None

        async def body() -> AsyncIterator[bytes]:
            yield b": hello\nretry: 10\n\n"
            sent = 0
            for number, (kind, data) in enumerate(self.service.events, 1):
                if number <= after:
                    continue
                if limit is not None and sent >= limit:
                    raise Cut
                if kind == "wait":
                    await wait_for(lambda: self.service.outcome != "")
                    continue
                if kind == "end":
                    self.service.finish(self.service.outcome)
                    kind, data = "state", {"state": self.service.job["state"]}
                yield f"event: {kind}\nid: {number}\ndata: {json.dumps(data)}\n\n".encode()
                sent += 1

        return StreamingResponse(body(), media_type="text/event-stream")

    async def content(self, request: Request) -> Response:
        digest = self.service.digest or base64.b64encode(hashlib.sha256(self.service.content).digest()).decode()
        headers = {"ETag": self.service.etag, "Accept-Ranges": "bytes", "Content-Digest": f"sha-256=:{digest}:"}
        start, status = 0, 200
        asked = request.headers.get("range")
        if asked and request.headers.get("if-range") == self.service.etag:
            start, status = int(asked.removeprefix("bytes=").rstrip("-")), 206
            headers["Content-Range"] = f"bytes {start}-{len(self.service.content) - 1}/{len(self.service.content)}"
            del headers["Content-Digest"]
        headers["Content-Length"] = str(len(self.service.content) - start)
        end = start + self.service.cut_content.popleft() if self.service.cut_content else None

        async def body() -> AsyncIterator[bytes]:
            yield self.service.content[start:end]
            if end is not None:
                raise Cut

        return StreamingResponse(body(), status, headers=headers)

    async def one_artifact(self, request: Request) -> Response:
        return JSONResponse(artifact(self.service))

    async def manifest(self, request: Request) -> Response:
        return JSONResponse({"seed": 0})

    async def signature(self, request: Request) -> Response:
        return Response('{"dsseEnvelope": {}}', media_type="application/vnd.dev.sigstore.bundle.v0.3+json")

    async def bom(self, request: Request) -> Response:
        return Response('{"bomFormat": "CycloneDX"}', media_type="application/vnd.cyclonedx+json; version=1.6")

    async def logs(self, request: Request) -> Response:
        return Response("reading\n\x1b[31mcompressing\n", media_type="text/plain")

    async def keys(self, request: Request) -> Response:
        return JSONResponse({"id": "key_1", "key": "mpk_secret", **await request.json()}, 201)

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/v1/jobs", self.create, methods=["POST"]),
                Route("/v1/jobs/job_1", self.job),
                Route("/v1/jobs/job_1:cancel", self.act, methods=["POST"]),
                Route("/v1/jobs/job_1/events", self.events),
                Route("/v1/jobs/job_1/logs", self.logs),
                Route("/v1/artifacts/art_1", self.one_artifact),
                Route("/v1/artifacts/art_1/content", self.content),
                Route("/v1/artifacts/art_1/manifest", self.manifest),
                Route("/v1/artifacts/art_1/signature", self.signature),
                Route("/v1/artifacts/art_1/bom", self.bom),
                Route("/v1/keys", self.keys, methods=["POST"]),
                Route("/v1/{noun:str}", self.upload, methods=["POST"]),
                Route("/v1/{noun:str}", self.listing, methods=["GET"]),
                Route("/v1/{noun:str}/{id:str}", self.one_upload, methods=["GET", "DELETE"]),
            ],
            exception_handlers={404: lambda request, error: problem(404, "not_found")},
        )


async def wait_for(done: Callable[[], bool]) -> None:
    for _ in range(1000):
        if done():
            return
        await asyncio.sleep(0.02)


def guarded(service: Service) -> Any:
    """The application behind authentication, the record of requests and the faults."""
    inner = Contract(service).app()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await inner(scope, receive, send)
        request = Request(scope)
        seen = Seen(request.method, request.url.path, dict(request.headers), dict(request.query_params))
        service.seen.append(seen)
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return await problem(401, "unauthenticated")(scope, receive, send)
        faults = service.faults[seen.path]
        fault = faults.popleft()() if faults else None
        if isinstance(fault, LostAnswer):
            await inner(scope, receive, Breaking(send))
        elif fault is not None:
            await fault(scope, receive, send)
        else:
            await inner(scope, receive, send)

    return app


class Breaking:
    """Sends the head of an answer and no more than half of its body."""

    def __init__(self, send: Any) -> None:
        self._send = send

    async def __call__(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            others = [pair for pair in message["headers"] if pair[0] != b"content-length"]
            await self._send({**message, "status": 200, "headers": [*others, (b"content-length", b"9999")]})
        else:
            await self._send({**message, "body": b"{", "more_body": True})
            raise Cut


class Serving:
    """Runs the server on a port while the block lasts."""

    def __init__(self, service: Service, port: int) -> None:
        service.url = f"http://127.0.0.1:{port}"
        config = uvicorn.Config(
            guarded(service), port=port, log_level="critical", ws="none", lifespan="off", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)

    def __enter__(self) -> None:
        self._thread.start()
        until = time.monotonic() + 10
        while not self._server.started and time.monotonic() < until:
            time.sleep(0.01)

    def __exit__(self, *details: object) -> None:
        self._server.should_exit = True
        self._thread.join()
