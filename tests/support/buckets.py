"""A real S3 service for tests."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server


@contextmanager
def running_s3(*buckets: str) -> Iterator[str]:
    """The address of an S3 service on a socket of the loopback interface, with these buckets, until the block ends."""
    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    for bucket in buckets:
        httpx2.put(f"{url}/{bucket}").raise_for_status()
    yield url
    server.shutdown()
    thread.join()
    server.server_close()


def s3_environment(endpoint: str) -> dict[str, str]:
    """The variables that lead a process there."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }
