"""Heats: contestants that quantize the same network, each in a process of its own, all in turn; and their scores.

Everything is kept in one JSON file for each heat, so that a second start goes on where the first was stopped. A
contestant whose settings or code have changed, or who failed, starts again; one that ran out of time does not.
"""

import functools
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.support import environments, judge
from benchmarks.support.environments import OURS, ROOT
from benchmarks.support.networks import Subject
from worker.engine import formats
from worker.engine.targets import TARGETS
from worker.engine.targets.floats import Floats

#: Suffix of the artifact in each runtime, and of what peers leave that write none.
SUFFIX = {"onnxruntime": ".onnx", "openvino": ".zip", "torch": ".pt2"}
LEAVES = {
    "aimet": judge.LOGITS,
    "brevitas": judge.LOGITS,
    "llmcompressor": judge.WEIGHTS,
    "modelopt": judge.WEIGHTS,
    "hqq": judge.WEIGHTS,
}
FLOAT = "float"


@dataclass(frozen=True)
class Contestant:
    """One way to quantize.

    Attributes:
        label: its row in the table.
        environment: `environments.OURS` or a key of `environments.PEERS`.
        job: what its program is told beside the files.
        calibration: a file that takes the place of the network's.
        start: label of the contestant whose drop it is to take back.
        rival: label of the contestant whose time its own is compared with.
        limit: seconds after which it is stopped.
    """

    label: str
    environment: str
    job: dict[str, Any]
    calibration: str | None = None
    start: str = ""
    limit: int = 600
    rival: str = ""


@dataclass(frozen=True)
class Heat:
    """Contestants on one network whose files are judged in one runtime.

    Attributes:
        stage: letter that chooses it on the command line.
        columns: keys of `table.COLUMNS`.
        rounds: how often everyone quantizes, at most; the fastest time counts.
        judged: whether the files are run; not where the heat is about memory.
        source: which of the network's files contestants start from, ``onnx`` or ``pt2``.
        part: tells heats of one stage, network and target apart.
    """

    stage: str
    title: str
    network: str
    target: str
    contestants: tuple[Contestant, ...]
    columns: tuple[str, ...]
    rounds: int = 100
    judged: bool = True
    source: str = "onnx"
    part: str = ""

    @property
    def name(self) -> str:
        return "-".join(filter(None, (self.stage, self.network, self.target, self.part)))


@dataclass
class Record:
    """What is known of a contestant.

    Attributes:
        settings: of the contestant when it ran.
        runs: the report of each round.
        score: of the file of the last round; empty until judged.
        error: why there is no file.
        final: whether trying again would be the same.
    """

    settings: dict[str, Any]
    runs: list[dict[str, Any]] = field(default_factory=list)
    score: dict[str, float] = field(default_factory=dict)
    error: str = ""
    final: bool = False

    def best(self, key: str) -> float | None:
        """The least of all rounds."""
        return min((run[key] for run in self.runs if key in run), default=None)


class Course:
    """Where a heat is run: its network, its files, and the records that are kept of it."""

    def __init__(self, heat: Heat, subject: Subject, cache: Path, fresh: bool) -> None:
        self.heat, self.subject, self.cache = heat, subject, cache
        self.folder = cache / "results" / subject.folder.name / heat.name
        self.folder.mkdir(parents=True, exist_ok=True)
        self._log = self.folder / "records.json"
        saved = json.loads(self._log.read_text()) if self._log.exists() and not fresh else {}
        self.seconds: float = saved.get("seconds", 0.0)
        self.load: list[float] = saved.get("load", [])
        self.base: dict[str, float] = saved.get("base", {})
        self.records = {label: Record(**record) for label, record in saved.get("records", {}).items()}

    def spent(self, seconds: float) -> None:
        """Count the time of this start, and keep everything."""
        self.seconds += seconds
        self.save()

    def save(self) -> None:
        kept = {label: asdict(record) for label, record in self.records.items()}
        content = {"seconds": self.seconds, "load": self.load, "base": self.base, "records": kept}
        part = self._log.with_suffix(".part")
        part.write_text(json.dumps(content, indent=1))
        part.rename(self._log)

    def file(self, contestant: Contestant) -> Path:
        """Where its result goes."""
        stem = "".join(char if char.isalnum() else "-" for char in contestant.label)
        return self.folder / (stem + LEAVES.get(contestant.environment, SUFFIX[self.heat.target]))

    def record(self, contestant: Contestant) -> Record:
        """Its record; a new one where its settings are others now, or where it failed and may not any more."""
        found = self.records.get(contestant.label)
        settings = json.loads(json.dumps(asdict(contestant)))
        ours = contestant.environment == OURS
        settings["code"] = _code() if ours else environments.PEERS[contestant.environment].digest
        if found is None or found.settings != settings or (found.error and not found.final):
            found = self.records[contestant.label] = Record(settings)
        return found

    def job(self, contestant: Contestant) -> dict[str, Any]:
        """What the contestant's program is told."""
        subject = self.subject
        files = {
            "model": getattr(subject, self.heat.source),
            "calibration": contestant.calibration or subject.calibration,
            "evaluation": subject.evaluation,
            "result": self.file(contestant),
        }
        if subject.training is not None and "training" not in contestant.job:
            files["training"] = subject.training
        told = {"network": subject.name, "target": self.heat.target, "threads": judge.THREADS, **contestant.job}
        return {**{role: str(path) for role, path in files.items()}, **told}


@functools.cache
def _code() -> str:
    """Digest of what our contestants run."""
    files = [path for folder in ("worker/engine", "app/recipes") for path in sorted((ROOT / folder).rglob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def run(course: Course, rounds: int) -> None:
    """Let everyone quantize, in turn; who has is not asked again."""
    for turn in range(min(rounds, course.heat.rounds)):
        for contestant in course.heat.contestants:
            record = course.record(contestant)
            if record.error or len(record.runs) > turn:
                continue
            course.load.append(round(os.getloadavg()[0], 1))
            report = _quantize(course, contestant)
            if "error" in report:
                record.error, record.final = report["error"], report.get("final", False)
            else:
                record.runs.append(report)
                record.score = {}
            said = report.get("error") or f"{report['seconds']:.2f} s, {report['cpu']:.2f} CPU s"
            print(f"  round {turn + 1}, {contestant.label}: {said}", flush=True)
            course.save()


def _quantize(course: Course, contestant: Contestant) -> dict[str, Any]:
    """Run one contestant once; its report, or ``{"error": ...}``."""
    try:
        command = environments.command(contestant.environment, course.cache)
    except RuntimeError as error:
        return {"error": f"cannot be installed: {error}"}
    # As the job's process has it: threads that wait for each other spin only for a moment.
    surroundings = {**os.environ, "GOMP_SPINCOUNT": "10000", "OMP_NUM_THREADS": str(judge.THREADS)}
    surroundings["PYTHONPATH"] = str(ROOT)
    try:
        done = subprocess.run(
            [*command, json.dumps(course.job(contestant))],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            env=surroundings,
            timeout=contestant.limit,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"stopped after {contestant.limit} s", "final": True}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"error": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1][:200]}
    report: dict[str, Any] = json.loads(lines[-1])
    return report


def score(course: Course) -> None:
    """Judge the files that were not judged yet, and their latencies side by side."""
    todo = [one for one in _finished(course) if not course.records[one.label].score]
    if not todo or not course.heat.judged:
        return
    data = np.load(course.subject.evaluation)
    images, labels = data["input"], data.get("label")
    floats = judge.outputs(course.subject.onnx, "onnxruntime", images)
    course.base["size"] = course.subject.onnx.stat().st_size
    course.base |= judge.base(floats, labels)
    for one in todo:
        record, path = course.records[one.label], course.file(one)
        try:
            logits = judge.outputs(path, course.heat.target, images)
        except Exception as error:  # noqa: BLE001 (each runtime has its own; the row says what it was)
            record.error = f"its file does not run: {str(error).splitlines()[0][:300]}"
            record.final = one.environment != OURS
            continue
        record.score = judge.score(logits, floats, labels)
        if path.suffix == SUFFIX[course.heat.target]:
            record.score["size"] = path.stat().st_size
    if "latency" in course.heat.columns:
        _time(course, images[:1])
    course.save()


def _finished(course: Course) -> Iterator[Contestant]:
    """Those with a file that is not known to be of no use."""
    records = ((one, course.records[one.label]) for one in course.heat.contestants)
    return (one for one, record in records if record.runs and not record.error)


def _time(course: Course, image: Any) -> None:
    suffix = SUFFIX[course.heat.target]
    files = {one.label: course.file(one) for one in _finished(course) if course.file(one).suffix == suffix}
    found = judge.latencies({FLOAT: _float(course), **files}, course.heat.target, image)
    course.base["latency"] = found.pop(FLOAT)
    for label, milliseconds in found.items():
        course.records[label].score["latency"] = milliseconds


def _float(course: Course) -> Path:
    """The float network in the heat's runtime."""
    if course.heat.target == "onnxruntime":
        return course.subject.onnx
    floats = Floats(formats.read(course.subject.onnx), course.folder / "baseline")
    return TARGETS[course.heat.target].export_float(floats).path
