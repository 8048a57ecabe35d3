"""Programs that run where a job runs, and tell what they could do."""

import asyncio
import textwrap
from collections.abc import Callable
from dataclasses import replace

import pytest

from worker.runner.folder import JobFolder
from worker.runner.process import Death, JobProcess
from worker.runner.sandbox import Confinement, Standing

Inside = Callable[..., dict[str, str]]

PROLOGUE = """
import ctypes, errno, json, os, pathlib, signal, socket, subprocess, sys, threading, time
folder = pathlib.Path(sys.argv[1])
found = {}
def attempt(name, action):
    try:
        found[name] = "done: " + repr(action())[:200]
    except BaseException as error:
        found[name] = type(error).__name__
"""
EPILOGUE = """
os.write(3, json.dumps({"type": "result", "facts": found}).encode() + b"\\n")
"""


def run(folder: JobFolder, confinement: Confinement, program: str, memory_bytes: int = 0) -> dict[str, str] | Death:
    """What the program found, or how it died."""
    code = PROLOGUE + textwrap.dedent(program) + EPILOGUE

    async def watch() -> dict[str, str] | Death:
        lock = folder.path.parent / "measure.lock"
        process = JobProcess(
            folder, confinement, memory_bytes=memory_bytes, threads=1, measure_lock=lock, command=("-c", code)
        )
        async with process as running:
            async for report in running.reports():
                assert report.type == "result", report
                return dict(report.facts or {})
            death = await running.ended()
        return replace(death, detail=death.detail + process.output_tail())

    return asyncio.run(watch())


def needs(standing: Standing, *walls: str) -> None:
    for wall in walls:
        if wall in standing.missing:
            pytest.skip(f"this system does not allow the wall {wall}: {standing.missing[wall]}")
