"""Static int8 quantization side by side with its peers: ``python benchmarks/ptq.py [--rounds N] [--fresh]``.

Every contestant starts from the same float ONNX file and the same calibration images, in a process of its own, all
of them in turn, `rounds` times; the fastest time of each counts, on the clock and on the CPU (the latter means
something on a busy machine too). Files are judged in ONNX Runtime on held-out data.
Peers (onnxruntime.quantization, NNCF) live in an environment of their own. Everything is kept under ``.cache/bench``:
a second start goes on where the first was stopped.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.support import judge, networks  # noqa: E402
from benchmarks.support.networks import Subject  # noqa: E402

CACHE = ROOT / ".cache" / "bench"
SUPPORT = ROOT / "benchmarks" / "support"
OURS = {f"ours-{calibration}": calibration for calibration in ("mse", "minmax", "percentile", "entropy")}
ORT = ("ort-minmax", "ort-minmax-batched", "ort-percentile", "ort-entropy")
CONTESTANTS = (*OURS, *ORT, "nncf")
SUBJECTS: tuple[Callable[[Path], Subject], ...] = (networks.random_resnet, networks.trained_resnet)


def peers_python() -> Path:
    """The interpreter of the peers' environment, which is made at first."""
    folder, stamp = CACHE / "venv", CACHE / "venv" / ".ready"
    python = folder / "bin" / "python"
    if not stamp.exists():
        print("making the peers' environment ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        packages = ["onnxruntime", "onnx", "numpy", "nncf"]
        subprocess.run([*install, "-c", str(ROOT / "constraints.txt"), *packages], check=True)
        stamp.touch()
    return python


def quantize(name: str, subject: Subject, result: Path) -> dict[str, Any]:
    """Run one contestant once; its report, or ``{"error": ...}``."""
    arguments = [str(subject.onnx), str(subject.calibration), str(result)]
    if name in OURS:
        command = [sys.executable, "-m", "benchmarks.support.ours", OURS[name], *arguments, str(judge.THREADS)]
    else:
        command = [str(peers_python()), str(SUPPORT / "peer.py"), name, *arguments]
    # As the job's process has it: threads that wait for each other spin only for a moment.
    environment = {**os.environ, "GOMP_SPINCOUNT": "10000"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"error": (done.stderr.strip().splitlines() or ["no output"])[-1][:200]}
    report: dict[str, Any] = json.loads(lines[-1])
    return report


def contest(subject: Subject, rounds: int, fresh: bool) -> dict[str, list[dict[str, Any]]]:
    """The reports of every contestant's rounds, taken in turn; finished ones are kept."""
    folder = subject.onnx.parent / "quantized"
    folder.mkdir(exist_ok=True)
    log = folder / "reports.json"
    reports: dict[str, list[dict[str, Any]]] = json.loads(log.read_text()) if log.exists() and not fresh else {}
    for turn in range(rounds):
        for name in CONTESTANTS:
            mine = reports.setdefault(name, [])
            if len(mine) <= turn:
                mine.append(quantize(name, subject, folder / f"{name}.onnx"))
                print(f"  round {turn + 1} {name}: {mine[-1]}", flush=True)
                log.write_text(json.dumps(reports))
    return reports


def table(subject: Subject, reports: dict[str, list[dict[str, Any]]]) -> None:
    """Print one row per contestant."""
    folder = subject.onnx.parent / "quantized"
    data = np.load(subject.evaluation)
    images, labels = data["input"], data.get("label")
    floats = judge.outputs(subject.onnx, images)
    seconds, cpu = _fastest(reports, "seconds"), _fastest(reports, "cpu")
    files = {name: folder / f"{name}.onnx" for name in seconds}
    latency = judge.latencies({"float": subject.onnx, **files}, images[:1])
    wall, work = (min((times[name] for name in ORT if name in times), default=math.nan) for times in (seconds, cpu))
    accuracy = "" if labels is None else f", accuracy {100 * float((floats.argmax(1) == labels).mean()):.2f} %"
    size = subject.onnx.stat().st_size / 1e6
    print(f"\n{subject.name}: float {size:.2f} MB, {latency['float']:.2f} ms{accuracy}, {len(images)} held-out samples")
    print(f"{'':20} {'s':>6} {'/ORT':>5} {'CPU s':>6} {'/ORT':>5} {'MB':>6} {'ratio':>6} {'dB':>6}", end=" ")
    print(f"{'drop, points [95 %]':>22} {'ms':>6} {'x':>5}")
    for name, path in files.items():
        score = judge.score(path, floats, images, labels)
        drop = "-" if labels is None else f"{score.drop:.2f} [{score.low:.2f}, {score.high:.2f}]"
        spent = f"{seconds[name]:6.2f} {seconds[name] / wall:5.2f} {cpu[name]:6.2f} {cpu[name] / work:5.2f}"
        stored = f"{score.size / 1e6:6.2f} {score.size / 1e6 / size:6.3f}"
        speed = f"{latency[name]:6.2f} {latency['float'] / latency[name]:5.2f}"
        print(f"{name:20} {spent} {stored} {score.sqnr_db:6.2f} {drop:>22} {speed}", flush=True)
    for name in set(reports) - set(seconds):
        print(f"{name:20} failed: {reports[name][-1].get('error')}")


def _fastest(reports: dict[str, list[dict[str, Any]]], key: str) -> dict[str, float]:
    """Every contestant's best round; those without one are left out."""
    found = {name: [report[key] for report in runs if key in report] for name, runs in reports.items()}
    return {name: min(values) for name, values in found.items() if values}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="times that every contestant quantizes (3)")
    parser.add_argument("--fresh", action="store_true", help="forget the times of earlier runs")
    parser.add_argument("--only", choices=("random", "trained"), help="one network alone")
    options = parser.parse_args()
    chosen = {"random": SUBJECTS[:1], "trained": SUBJECTS[1:]}.get(options.only, SUBJECTS)
    CACHE.mkdir(parents=True, exist_ok=True)
    for make in chosen:
        print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
        subject = make(CACHE)
        table(subject, contest(subject, options.rounds, options.fresh))


if __name__ == "__main__":
    main()
