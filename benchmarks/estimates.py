"""Estimated beside measured: size, memory and time of whole jobs. ``python benchmarks/estimates.py [--network NAME]``.

Every job runs as a worker runs it, in a process of its own that is watched for memory, on random data: neither size nor
memory nor time depends on what it learns. A few minutes for the small network, a quarter of an hour for both.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

from app.recipes import ModelFacts, parse_recipe  # noqa: E402
from app.recipes.estimate import Estimate, Machine, Question, Samples, estimate  # noqa: E402
from benchmarks.digits import network as digits  # noqa: E402
from benchmarks.support.resnet import ResNet18  # noqa: E402
from worker.engine.checks import check_model  # noqa: E402
from worker.runner.folder import JobFolder  # noqa: E402
from worker.runner.messages import ASSIGNMENT, Assignment, Failure, Result  # noqa: E402
from worker.runner.process import JobProcess  # noqa: E402
from worker.runner.sandbox import Confinement  # noqa: E402

Recipe = list[dict[str, Any]]

SAMPLES: Final = 256
NETWORKS: Final[dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]]] = {
    "digits": (digits, (1, 8, 8)),
    "resnet18": (lambda: ResNet18(10, small=True), (3, 32, 32)),
}
JOBS: Final[list[tuple[Recipe, tuple[str, ...]]]] = [
    ([{"method": "quantize.static"}], ("onnxruntime",)),
    ([{"method": "quantize.static"}], ("onnxruntime", "openvino", "torch")),
    ([{"method": "quantize.dynamic"}], ("torch",)),
    ([{"method": "quantize.float"}], ("onnxruntime",)),
    ([{"method": "quantize.weights", "bits": 4, "algorithm": "gptq"}], ("onnxruntime",)),
    ([{"method": "prune.channels", "scope": "layer"}, {"method": "quantize.static"}], ("onnxruntime",)),
    ([{"method": "finetune", "epochs": 2}], ("onnxruntime",)),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, help="one network alone")
    parser.add_argument("--threads", type=int, default=1, help="processors of a job (1)")
    options = parser.parse_args()
    print(f"{'network':10}{'recipe':34}{'targets':30}{'size':>24}{'memory, MiB':>18}{'time, s':>16}")
    for name in [options.network] if options.network else NETWORKS:
        with tempfile.TemporaryDirectory(prefix="estimates-") as folder:
            model, data, facts = prepared(name, Path(folder))
            for recipe, targets in JOBS:
                found = guessed(recipe, targets, facts, options.threads)
                size, peak, seconds = asyncio.run(measured(recipe, targets, model, data, options.threads))
                print(
                    f"{name:10}{', '.join(step['method'] for step in recipe):34}{', '.join(targets):30}"
                    f"{beside(found.size_bytes, size):>24}{beside(found.peak_memory_bytes >> 20, peak >> 20):>18}"
                    f"{beside(round(found.run_s), round(seconds)):>16}",
                    flush=True,
                )


def beside(estimated: int, found: int) -> str:
    """Both, as estimated/measured."""
    return f"{estimated}/{found}"


def prepared(name: str, folder: Path) -> tuple[Path, Path, ModelFacts]:
    """The model's file, random labelled data for it, and what its check finds."""
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    batch = torch.export.Dim("batch")
    program = torch.export.export(make().eval(), (torch.randn(2, *shape),), dynamic_shapes=({0: batch},))
    torch.export.save(program, folder / "model.pt2")
    random = np.random.default_rng(0)
    images = random.normal(size=(SAMPLES, *shape)).astype(np.float32)
    np.savez(folder / "data.npz", input=images, label=random.integers(0, 10, SAMPLES))
    return folder / "model.pt2", folder / "data.npz", check_model(folder / "model.pt2")


def guessed(recipe: Recipe, targets: tuple[str, ...], facts: ModelFacts, threads: int) -> Estimate:
    """As a fresh deployment estimates it, which has not learned from any job."""
    samples = Samples(SAMPLES, SAMPLES, SAMPLES)
    return estimate(Question(parse_recipe({"steps": recipe}), targets, facts, samples, Machine(threads)))


async def measured(
    recipe: Recipe, targets: tuple[str, ...], model: Path, data: Path, threads: int
) -> tuple[int, int, float]:
    """Bytes of the artifacts, most bytes of memory, and seconds of the job."""
    folder = JobFolder.create(model.parent, "job", None)
    files = {"calibration": data, "training": data, "evaluation": data}
    steps = parse_recipe({"steps": recipe}).model_dump(mode="json")
    assignment = Assignment(
        kind="compress", output=folder.output, model=model, recipe=steps, targets=targets, threads=threads, **files
    )
    (folder.path / ASSIGNMENT).write_text(assignment.model_dump_json())
    walls, lock = Confinement(walls=("no_new_privs",)), model.parent / "measure.lock"
    started = time.monotonic()
    last: Any = None
    async with JobProcess(folder, walls, memory_bytes=0, threads=threads, measure_lock=lock) as process:
        async for report in process.reports():
            last = report
    seconds = time.monotonic() - started
    folder.remove()
    if not isinstance(last, Result):
        raise SystemExit(f"the job failed: {last.detail if isinstance(last, Failure) else process.output_tail()}")
    size = sum(figures["size_bytes"] for figures in last.metrics["artifacts"].values())
    return size, process.peak_bytes, seconds


if __name__ == "__main__":
    main()
