"""Memory and time of a job, from the sizes of what it computes.

Both are taken from jobs on a small machine (`benchmarks/estimates.py` prints them beside what this says), and corrected
by what jobs of a deployment really took: see `app.jobs.estimates`. Memory is that of the job's process and of the
processes in which it measures, as the limit of a job counts it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from app.recipes.estimate.layers import Outline
from app.recipes.methods.effects import Work

MIB: Final = 1024**2


@dataclass(frozen=True)
class Exporter:
    """What a target's exporter and runtime take beside the model.

    Attributes:
        memory: of the libraries, in bytes, once it exports and once its two measuring processes run.
        copies: of the float weights while it exports, and in the measuring processes.
        start_s / call_s: of an export, and more for each layer and operator.
        measure_s: of taking times.
    """

    memory: tuple[int, int]
    copies: tuple[float, float]
    start_s: float
    call_s: float
    measure_s: float = 6.0


EXPORTERS: Final[Mapping[str, Exporter]] = {
    "onnxruntime": Exporter((150 * MIB, 50 * MIB), (6.0, 3.0), 5.0, 0.1),
    "openvino": Exporter((500 * MIB, 150 * MIB), (5.0, 2.0), 4.0, 0.08),
    "torch": Exporter((100 * MIB, 600 * MIB), (4.0, 4.0), 6.0, 0.1, measure_s=10.0),
    "executorch": Exporter((400 * MIB, 500 * MIB), (6.0, 4.0), 40.0, 0.4, measure_s=10.0),
    "litert": Exporter((250 * MIB, 100 * MIB), (6.0, 3.0), 7.0, 0.2),
    "tensorrt": Exporter((600 * MIB, 800 * MIB), (7.0, 4.0), 60.0, 0.5),
}
_USUAL: Final = EXPORTERS["onnxruntime"]
#: The job's process with its libraries, and how long it takes to start.
BASE_BYTES: Final = 200 * MIB
_START_S: Final = 5.0
#: What an allocator holds beyond what is in use.
_SLACK: Final = 1.15
#: Share of an exporter's libraries that stays in memory while another target has its turn.
_LEFT: Final = 0.3
#: Samples that a measuring process runs together.
_MEASURED: Final = 16
#: Values of a batch, of which a pass holds the live ones; a training also their gradients.
_BATCH: Final = 64
#: A pass over samples takes so many at a time, fewer where values are large.
_PASS_BYTES: Final = 64 * MIB
#: Values that wait in a float and a quantized network for steps that go from layer to layer, at most; rows of a layer.
_WAITING_BYTES: Final = 512 * MIB
_ROWS_BYTES: Final = 96 * MIB
#: Bytes for each pair of a layer's inputs: the second moments of what it reads, in float64, and what is made of them.
_PAIR_BYTES: Final = 16
#: Weights, gradients and two moments of an optimizer; the best so far, and what a checkpoint is made of.
_TRAINED: Final = 7.0
#: What of the libraries only trainings load.
_TRAINING_BYTES: Final = 75 * MIB
#: Multiply-accumulates a second of one processor in float; what is element-wise moves bytes instead.
MACS_PER_S: Final = 15e9
BYTES_PER_S: Final = 1.5e9
#: What a GPU does.
GPU_MACS_PER_S: Final = 2e12
GPU_BYTES_PER_S: Final = 4e11
#: Training one sample costs so many forward passes.
_BACKWARD: Final = 3.0
#: Threads pay less the more there are.
_SCALING: Final = 0.8


@dataclass(frozen=True)
class Machine:
    """What a job computes on."""

    threads: int = 1
    gpu: bool = False

    def seconds(self, macs: float, moved: float) -> float:
        """For so many multiply-accumulates and bytes."""
        if self.gpu:
            return macs / GPU_MACS_PER_S + moved / GPU_BYTES_PER_S
        speedup: float = self.threads**_SCALING
        return (macs / MACS_PER_S + moved / BYTES_PER_S) / speedup


@dataclass(frozen=True)
class Samples:
    """Numbers of samples of a job by their use."""

    calibration: int = 0
    training: int = 0
    evaluation: int = 0


def step_bytes(model: Outline, work: Work, samples: Samples) -> float:
    """Memory of a step beside the base: networks, and values of a batch or a training."""
    # Stored integers and what was read lie beside the network and the networks that the step holds.
    weights = model.float_bytes * (2.0 + work.held)
    passing = min(_BATCH * model.live_bytes, max(_PASS_BYTES, 2 * model.live_bytes))
    values = passing if work.samples or work.tries or samples.evaluation else model.live_bytes
    if work.rows:
        widest = max((math.prod(weight[1:]) for layer in model.layers for weight in layer.weights), default=0)
        values += min(_WAITING_BYTES, 2 * work.samples * model.value_bytes) + _ROWS_BYTES + _PAIR_BYTES * widest**2
    if work.epochs:
        batch = min(work.batch, max(samples.training, 1))
        weights += model.float_bytes * _TRAINED + _TRAINING_BYTES
        values = max(values, batch * (model.value_bytes * 2 + model.live_bytes * work.taught))
    return weights + values


def step_seconds(model: Outline, work: Work, samples: Samples, machine: Machine) -> float:
    """Time of a step."""
    passes: float = work.passes * min(work.samples, samples.calibration)
    passes += samples.training * work.epochs * (_BACKWARD + work.taught)
    passes += work.tries * samples.training / 5
    seconds = machine.seconds(passes * model.macs, passes * model.value_bytes)
    # Optimizers and roundings go through all weights, whatever the samples.
    steps = work.epochs * -(-samples.training // max(work.batch, 1))
    through = model.parameters * (20.0 * steps + work.per_weight)
    return seconds + machine.seconds(0, through) + 0.2


def peak_bytes(steps: Sequence[float], models: Sequence[Outline], targets: Sequence[str]) -> float:
    """The most memory of a job.

    Args:
        steps: `step_bytes` of each.
        models: as it was uploaded, and as it was left.
    """
    largest = max(models, key=lambda model: model.float_bytes)
    exporters = [EXPORTERS.get(target, _USUAL) for target in targets]
    # One target after the other; each leaves some of its exporter's libraries behind.
    libraries = sum(one.memory[0] for one in exporters)
    most = max(
        sum(one.memory) + largest.float_bytes * sum(one.copies) + _LEFT * (libraries - one.memory[0])
        for one in exporters
    )
    values = 2 * _MEASURED * largest.live_bytes
    return BASE_BYTES + max([*steps, most + values]) * _SLACK


def run_seconds(
    steps: Sequence[float], models: Sequence[Outline], targets: Sequence[str], samples: Samples, machine: Machine
) -> float:
    """The time of a job: its start, its steps, and exporting and measuring float model and artifact for each target."""
    total: float = _START_S + sum(steps)
    for target in targets:
        exporter = EXPORTERS.get(target, _USUAL)
        total += exporter.start_s + exporter.measure_s
        total += sum(exporter.call_s * model.calls / 2 + model.float_bytes / 5e7 for model in models)
        runs = samples.evaluation * len(models)
        total += machine.seconds(runs * models[0].macs, runs * models[0].live_bytes)
    return total
