"""Estimated beside measured, through a running service: size, memory and time of whole jobs, round after round.

``python -m benchmarks.estimates [--network NAME] [--rounds N]`` starts an embedded service with a fresh database, and
runs every kind of job once in each round, one after the other. In the first round nothing corrects the estimates; later
ones are corrected by the rounds before. Data are random: neither size nor memory nor time depends on what is learned.
"""

import argparse
import io
import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from benchmarks.demo import free_port
from benchmarks.digits import network as digits
from benchmarks.support.resnet import ResNet18
from tests.support.client import Api
from tests.support.service import serving

Recipe = list[dict[str, Any]]

SAMPLES: Final = 256
PATIENCE_S: Final = 1800.0
NETWORKS: Final[dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]]] = {
    "digits": (digits, (1, 8, 8)),
    "resnet18": (lambda: ResNet18(10, small=True), (3, 32, 32)),
}
JOBS: Final[list[tuple[Recipe, list[str]]]] = [
    ([{"method": "quantize.static"}], ["onnxruntime"]),
    ([{"method": "quantize.static"}], ["onnxruntime", "openvino", "torch"]),
    ([{"method": "quantize.static"}], ["openvino"]),
    ([{"method": "quantize.static"}], ["executorch"]),
    ([{"method": "quantize.static"}], ["litert"]),
    ([{"method": "quantize.dynamic"}], ["torch"]),
    ([{"method": "quantize.float"}], ["onnxruntime"]),
    ([{"method": "quantize.weights", "bits": 4, "algorithm": "gptq"}], ["onnxruntime"]),
    ([{"method": "prune.channels", "scope": "layer"}, {"method": "quantize.static"}], ["onnxruntime"]),
    ([{"method": "finetune", "epochs": 2}], ["onnxruntime"]),
]
#: Of a figure, the factor between estimate and measurement that it is to stay within.
AIMS: Final = {"size_bytes": 1.05, "peak_memory_bytes": 1.5, "run_s": 1.5}


def main() -> int:
    """Prints a line for each job, and how many kept the aims, for each round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, action="append", help="this network alone; may be repeated")
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="estimates-") as folder, serving(Path(folder), free_port()) as service:
        api = Api(service.url, service.key())
        inputs = {name: uploaded(api, name) for name in options.network or NETWORKS}
        for number in range(options.rounds):
            say(f"\nround {number + 1}: estimated/measured\n{'':46}{'size':>20}{'memory, MiB':>14}{'time, s':>10}")
            factors = [
                shown(api, name, ids, recipe, targets) for name, ids in inputs.items() for recipe, targets in JOBS
            ]
            for figure, aim in AIMS.items():
                ordered = sorted(found[figure] for found in factors)
                kept = sum(factor <= aim for factor in ordered)
                say(
                    f"{figure:18} within {aim:g}: {kept} of {len(ordered)}; "
                    f"median {ordered[len(ordered) // 2]:.2f}, largest {ordered[-1]:.2f}"
                )
    return 0


def uploaded(api: Api, name: str) -> dict[str, str]:
    """A network and its data; their ids, by field of a job."""
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    program = torch.export.export(
        make().eval(), (torch.randn(2, *shape),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    torch.export.save(program, model := io.BytesIO())
    random = np.random.default_rng(0)
    images = random.normal(size=(SAMPLES, *shape)).astype(np.float32)
    np.savez(data := io.BytesIO(), input=images, label=random.integers(0, 10, SAMPLES))
    dataset = api.checked("datasets", data.getvalue(), "data.npz", kind="tensors")["id"]
    roles = {f"{role}_dataset_id": dataset for role in ("calibration", "evaluation", "training")}
    return {"model_id": api.checked("models", model.getvalue(), f"{name}.pt2")["id"], **roles}


def shown(api: Api, name: str, ids: dict[str, str], recipe: Recipe, targets: list[str]) -> dict[str, float]:
    """Runs a job and prints its line; figure -> the factor that it was off by, whichever way."""
    job = api.finished(api.post_job(**ids, recipe={"steps": recipe}, targets=targets)["id"], PATIENCE_S)
    if job["state"] != "succeeded":
        raise SystemExit(f"the job {job['state']}: {job['error']}")
    began, ended = (np.datetime64(job[key].rstrip("Z")) for key in ("started_at", "finished_at"))
    found = {
        "size_bytes": sum(figures["size_bytes"] for figures in job["metrics"]["artifacts"].values()),
        "peak_memory_bytes": job["peak_memory_bytes"],
        "run_s": float((ended - began) / np.timedelta64(1, "s")),
    }
    guess = {key: job["estimate"][key] for key in found}
    pairs = [
        f"{guess['size_bytes']}/{found['size_bytes']}",
        f"{guess['peak_memory_bytes'] >> 20}/{found['peak_memory_bytes'] >> 20}",
        f"{guess['run_s']:.0f}/{found['run_s']:.0f}",
    ]
    methods = " ".join(step["method"] for step in recipe)
    say(f"{name:9} {methods[:22]:22} {' '.join(targets)[:12]:12} {pairs[0]:>20}{pairs[1]:>14}{pairs[2]:>10}")
    return {key: math.exp(abs(math.log(guess[key] / found[key]))) for key in found}


def say(text: str) -> None:
    """A line, at once."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
