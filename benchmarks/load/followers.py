"""The client of `streams`: ``python -m benchmarks.load.followers URL JOB COUNT KEY`` follows a job so many times.

Prints ``open`` once all streams are, and after the last has ended, for each stream, event id -> time of arrival.
"""

import asyncio
import json
import sys
import time
from urllib.parse import urlsplit

import uvloop

#: How long the job may go on, in seconds.
PATIENCE_S = 900.0
#: Connections that are being opened at once.
OPENING = 32


async def follow(url: str, job_id: str, key: str, gate: asyncio.Semaphore, opened: asyncio.Event) -> dict[str, float]:
    """One stream, to its end."""
    parts = urlsplit(url)
    async with gate:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        head = f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {key}\r\n"
        writer.write(f"{head}Accept: text/event-stream\r\n\r\n".encode())
        if not (await reader.readline()).startswith(b"HTTP/1.1 200"):
            raise RuntimeError("a stream was refused")
        while not (await reader.readline()).startswith(b"retry:"):
            pass
        opened.set()
    arrived = {}
    while line := await reader.readline():
        if line.startswith(b"id: "):
            arrived[line[4:].decode().strip()] = time.monotonic()
        elif line == b"0\r\n":  # the last chunk: the connection itself stays open
            break
    writer.close()
    return arrived


async def main(url: str, job_id: str, count: int, key: str) -> None:
    """All streams."""
    gate, opened = asyncio.Semaphore(OPENING), [asyncio.Event() for _ in range(count)]
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        tasks = [group.create_task(follow(url, job_id, key, gate, event)) for event in opened]
        for event in opened:
            await event.wait()
        sys.stdout.write("open\n")
        sys.stdout.flush()
    sys.stdout.write(json.dumps([task.result() for task in tasks]))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
