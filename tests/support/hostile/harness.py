"""Files through the check of an upload as a worker runs it: many in one process, or each in a process of its own."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from tests.support.hostile.case import ACCEPTED, Case
from worker.runner.folder import JobFolder
from worker.runner.messages import ASSIGNMENT, Assignment, Failure, Log, Result
from worker.runner.process import CHILD_MODULE, JobProcess
from worker.runner.sandbox import Confinement, Standing, system_paths

#: Name of the file that code of a hostile one would create; no text of a library has it.
CANARY = "modelpress-canary"
INSIDE = Path(__file__).with_name("inside.py")
#: What the check of one file of the corpus may take: they are all small, whatever they claim.
MEMORY_BYTES, FILE_BYTES, CPU_S, WALL_S = 3 * 1024**3, 1024**3, 20.0, 120.0
TEXTS = "Hello, world\nThe quick brown fox\n" + "a" * 3000 + "!\n" + "x y " * 500


@dataclass(frozen=True)
class Answer:
    """How the check of one file ended.

    Attributes:
        code: a code of errors, `ACCEPTED`, or ``died`` or ``hung``, which it must not.
        found: what the audit hook saw that no check has a reason for.
        left: files that it left behind.
        peak: most memory that the process had until then, in bytes.
    """

    name: str
    code: str
    detail: str = ""
    seconds: float = 0.0
    cpu_s: float = 0.0
    peak: int = 0
    found: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


@cache
def standing() -> Standing:
    """The walls that this system allows."""
    command = [sys.executable, "-m", "worker.runner.launch", "--probe", gettempdir()]
    return Standing.from_json(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def confinement(folder: JobFolder) -> Confinement:
    """The walls of a check, as a worker's slot makes them."""
    return Confinement(
        walls=standing().walls,
        read=(str(folder.path),),
        write=(str(folder.output), str(folder.tmp), str(folder.home)),
        memory_bytes=MEMORY_BYTES,
        file_bytes=FILE_BYTES,
        uid=standing().uid(os.getpid()),
        keep_search=standing().keep_search,
    )


def check(cases: Sequence[Case], work_dir: Path, warm: Iterable[Case] = ()) -> list[Answer]:
    """The answers to all `cases`, from one process; a new one goes on behind a file that ended it.

    Args:
        work_dir: a folder for what the worker's would hold.
        warm: good files that are checked first, unwatched, so that the libraries are loaded.
    """
    answers: list[Answer] = []
    while len(answers) < len(cases):
        folder = JobFolder.create(work_dir, "hostile", standing().uid(os.getpid()))
        try:
            answers += _session(folder, cases[len(answers) :], list(warm))
        finally:
            folder.remove()
    return answers


def canary_of(folder: JobFolder) -> Path:
    """What code of a file would create; the job may."""
    return folder.output / CANARY


def _session(folder: JobFolder, cases: Sequence[Case], warm: Sequence[Case]) -> list[Answer]:
    listed: list[dict[str, Any]] = []
    for index, case in enumerate([*warm, *cases]):
        file = f"file{index}"
        case.write(folder.inputs / file, canary_of(folder))
        (folder.inputs / file).chmod(0o444)
        listed.append({"name": case.name, "kind": case.kind, "file": file, "watched": index >= len(warm)})
    (folder.inputs / "texts").write_text(TEXTS)
    (folder.inputs / "cases.json").write_text(json.dumps(listed))
    (folder.inputs / "roots.json").write_text(json.dumps(system_paths()))
    return asyncio.run(_listen(folder))[len(warm) :]


async def _listen(folder: JobFolder) -> list[Answer]:
    answers: list[Answer] = []
    name, code = "none", "hung"
    lock = folder.path.parent / "measure.lock"
    command = ("-c", INSIDE.read_text())
    limits = {"memory_bytes": MEMORY_BYTES, "threads": 1, "measure_lock": lock}
    async with JobProcess(folder, confinement(folder), command=command, **limits) as process:
        reports = process.reports()
        try:
            while True:
                async with asyncio.timeout(WALL_S):
                    report = await anext(reports)
                if isinstance(report, Result):
                    return answers
                if isinstance(report, Log) and report.message.startswith("starting "):
                    name = report.message.removeprefix("starting ")
                elif isinstance(report, Log):
                    answers.append(Answer(**json.loads(report.message.removeprefix("answered "))))
        except StopAsyncIteration:
            code = "died"
            told = str(await process.ended())
        except TimeoutError:
            told = f"no answer within {WALL_S} s"
        if name == "none":
            raise RuntimeError(f"the harness did not start: {told} {process.output_tail()}")
        return [*answers, Answer(name, code, f"{told} {process.output_tail()}")]


def check_alone(case: Case, work_dir: Path) -> Answer:
    """The answer to one file from a process of its own, started as the supervisor starts it."""
    folder = JobFolder.create(work_dir, "hostile", standing().uid(os.getpid()))
    try:
        file = folder.inputs / ("model" if case.kind == "model" else "dataset")
        case.write(file, canary_of(folder))
        named = {"model": file} if case.kind == "model" else {"dataset": file, "dataset_kind": case.kind}
        kind = "check_model" if case.kind == "model" else "check_dataset"
        assignment = Assignment.model_validate({"kind": kind, "output": folder.output, "filename": file.name, **named})
        (folder.path / ASSIGNMENT).write_text(assignment.model_dump_json())
        return asyncio.run(_alone(case, folder))
    finally:
        folder.remove()


async def _alone(case: Case, folder: JobFolder) -> Answer:
    limits = {"memory_bytes": MEMORY_BYTES, "threads": 1, "measure_lock": folder.path.parent / "measure.lock"}
    async with JobProcess(folder, confinement(folder), command=("-m", CHILD_MODULE), **limits) as process:
        code, detail = "died", ""
        async with asyncio.timeout(WALL_S):
            async for report in process.reports():
                if isinstance(report, Result):
                    code = ACCEPTED
                elif isinstance(report, Failure):
                    code, detail = report.code, report.detail
        detail = detail or process.output_tail()
    left = sorted(str(path.relative_to(folder.path)) for path in folder.output.rglob("*"))
    return Answer(case.name, code, detail, left=left)
