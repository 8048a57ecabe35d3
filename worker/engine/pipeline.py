"""From a job to its artifacts: read -> steps -> export to each target -> measure the exported files -> gate."""

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from app.recipes import TARGETS as GRIDS
from app.recipes import Limits, Recipe, Step
from app.recipes.recipe import check_targets
from worker.engine import checkpoint, formats
from worker.engine.data.indices import require_indices
from worker.engine.data.prepare import Prepared, prepare
from worker.engine.data.samples import Samples
from worker.engine.errors import InvalidModel, RuntimeFailure, UserError
from worker.engine.manifest import Made, describe, file_name, identity
from worker.engine.measure.compare import Setup, Side, compare, probe_of
from worker.engine.measure.effects import Effects, Figures, change, told
from worker.engine.measure.gate import Measured, gate, require_data
from worker.engine.measure.machine import cpu_flags, saturates
from worker.engine.measure.macs import random_inputs
from worker.engine.methods import METHODS
from worker.engine.methods.lesson import teaching
from worker.engine.network import Network
from worker.engine.progress import Part, Within
from worker.engine.state import Compressed, Context, Partial, Reporter
from worker.engine.targets import TARGETS
from worker.engine.targets.floats import Floats

#: Phase -> where it starts and ends on the job's way from 0 to 1.
PHASES = {"reading": (0.0, 0.06), "compressing": (0.06, 0.45), "exporting": (0.45, 0.65), "measuring": (0.65, 1.0)}
#: A checkpoint within a step takes at most this share of the time since the last one: steps compute, not write.
_WRITING = 0.1
#: By now a checkpoint within a step has been collected, or a later one has; in seconds.
_COLLECTED_S = 60.0


@dataclass(frozen=True)
class ModelFile:
    """A model beside the job's own; `format` None: as its content tells."""

    path: Path
    format: str | None = None


@dataclass(frozen=True)
class JobInput:
    """A job as the engine sees it.

    Attributes:
        data: ``calibration``, ``training``, ``evaluation`` -> file; those that were given.
        targets: names in `TARGETS`, in the order of the result.
        output: folder for artifacts, checkpoints and scratch files.
        models: id -> file, of the models that steps name.
        filename: the model's, as uploaded: what artifacts are named after.
        resume: a checkpoint to continue from.
        provenance: what the caller knows about the inputs; goes into the manifests as it is.
    """

    model: Path
    recipe: Recipe
    targets: tuple[str, ...]
    output: Path
    model_format: str | None = None
    filename: str = "model"
    task: str | None = None
    data: Mapping[str, Path] = field(default_factory=dict)
    evaluation_dataset_id: str | None = None
    limits: Limits = field(default_factory=Limits)
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    resume: Path | None = None
    models: Mapping[str, ModelFile] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class JobResult:
    """What a job came to: artifacts, ``metrics`` and ``gate`` as the API shows them."""

    artifacts: tuple[Made, ...]
    metrics: dict[str, Any]
    gate: dict[str, Any]


@dataclass(frozen=True)
class _Exported:
    """One target's two files."""

    target: str
    baseline: Path
    artifact: Path
    seconds: float


def run(job: JobInput, reporter: Reporter) -> JobResult:
    """Do the job; everything that is measured is measured on the exported files.

    Raises:
        UserError: the model, the data or the limits are at fault.
        RuntimeFailure: an exporter or runtime failed.
    """
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    scratch = job.output / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    network, prepared = _read(job, reporter, scratch)
    # A single step is judged by the files alone.
    tried = prepared.split.evaluation if len(job.recipe.steps) > 1 else None
    effects = Effects(network, tried, prepared.measured, job.targets[0], job.device, job.seed)
    compressed, steps = _compress(job, effects, prepared, reporter, scratch)
    for note in [*network.notes, *prepared.notes, *compressed.notes]:
        reporter.log(note)
    exported = _export(job, network, compressed, reporter, scratch)
    facts = effects.facts(network), effects.facts(compressed.network)
    measured, notes = _measure(job, network, prepared, exported, facts, reporter, scratch)
    verdict = gate(job.limits, measured)
    metrics: dict[str, Any] = {
        "baseline": {target: figures.baseline for target, figures in measured.items()},
        "artifacts": {target: figures.artifact for target, figures in measured.items()},
        "layers": compressed.layers,
        "before": effects.before,
        "steps": steps,
        **({"curves": compressed.curves} if compressed.curves else {}),
        **({"sensitivity": compressed.sensitivity} if compressed.sensitivity else {}),
        **({"pareto": compressed.pareto} if compressed.pareto else {}),
        "notes": [*network.notes, *prepared.notes, *compressed.notes, *notes],
    }
    timings = {"steps_s": [step.get("seconds") for step in steps], "total_s": round(time.monotonic() - started, 3)}
    others = {name: file.path for name, file in job.models.items()}
    inputs = {role: identity(path) for role, path in {"model": job.model, **job.data, **others}.items()}
    tensors = {"inputs": network.inputs, "outputs": network.outputs}  # which compression keeps
    told = {"inputs": inputs, "tensors": {side: [one.to_json() for one in specs] for side, specs in tensors.items()}}
    made = tuple(_made(job, item, told, {**timings, "export_s": round(item.seconds, 3)}) for item in exported)
    reporter.progress("measuring", 1.0)
    return JobResult(made, metrics, verdict)


def _read(job: JobInput, reporter: Reporter, scratch: Path) -> tuple[Network, Prepared]:
    for fault in check_targets(job.recipe, job.targets):
        raise UserError(fault.code, fault.detail)
    for target in job.targets:
        why = TARGETS[target].available()
        if why is not None:
            raise RuntimeFailure("target_unavailable", f"This worker cannot make artifacts for {target}: {why}")
    for missing in (model_id for model_id in job.recipe.models if model_id not in job.models):
        raise UserError("model_not_found", f"A step names the model {missing}, and the job was not given its file.")
    part = Part(reporter, "reading", *PHASES["reading"])
    part(0.0)
    network = formats.read(job.model, job.model_format)
    part(0.5)
    specs = network.inputs, network.outputs
    prepared = prepare(job.data, specs, job.task, job.seed, scratch / "data", network.tokenizer)
    require_indices(network, prepared.split)
    require_data(job.limits, samples=prepared.split.evaluation is not None, labels=prepared.measured is not None)
    for step in (step for step in job.recipe.steps if step.needs_labels):
        teaching(step.method, prepared.split.training, prepared.task, taught=False)
    part(1.0)
    return network, prepared


def _compress(
    job: JobInput, effects: Effects, prepared: Prepared, reporter: Reporter, scratch: Path
) -> tuple[Compressed, list[dict[str, Any]]]:
    """Run the steps that are not in the checkpoint, and leave a checkpoint after each."""
    part = Part(reporter, "compressing", *PHASES["compressing"])
    network = effects.original
    saved = _resumed(job, network, reporter)
    compressed, rows, partial = saved.compressed, saved.steps, saved.partial
    figures = effects.figures(compressed) if len(rows) < len(job.recipe.steps) else {}
    for index in range(len(rows), len(job.recipe.steps)):
        step = job.recipe.steps[index]
        within = part.slice(index, len(job.recipe.steps))
        within(0.0)
        keeper = _Keeper(compressed, rows, job.output, network, reporter)
        quiet = Within(reporter, within)
        surroundings = _Surroundings(network, prepared, quiet, scratch / f"step-{index}", keeper, partial)
        compressed, row = _step(job, step, compressed, surroundings)
        partial = None
        before, figures = figures, effects.figures(compressed)
        rows = [*rows, {**row, **figures, "change": change(before, figures)}]
        reporter.log(told(rows[-1]))
        file = job.output / f"checkpoint-{index}.zip"
        checkpoint.save(compressed, rows, file, network)
        reporter.checkpoint(f"after step {index + 1}, {step.method}", file)
    part(1.0)
    return compressed, rows


@dataclass
class _Keeper:
    """Writes checkpoints while a step is under way: the state in front of the step, and how far the step is."""

    compressed: Compressed
    rows: list[dict[str, Any]]
    folder: Path
    original: Network
    reporter: Reporter
    files: list[Path] = field(default_factory=list)
    ended: float = 0.0
    took: float = 0.0

    def __call__(self, label: str, partial: Partial) -> None:
        started = time.monotonic()
        if self.files and self.took > _WRITING * (started - self.ended):
            return
        file = self.folder / f"checkpoint-{len(self.rows)}-{len(self.files)}.zip"
        written = self.folder / f"network-{len(self.rows)}.pt2"
        known = written.exists()
        checkpoint.save(self.compressed, self.rows, file, self.original, partial, written)
        self.reporter.checkpoint(f"within step {len(self.rows) + 1}, {label}", file)
        for old in self.files:  # whoever collects them is that far behind at most
            if old.exists() and file.stat().st_mtime - old.stat().st_mtime > _COLLECTED_S:
                old.unlink()
        self.files.append(file)
        self.ended = time.monotonic()
        exported = written.exists() and not known  # which the next checkpoint of this step will not do again
        self.took = 0.0 if exported else self.ended - started


@dataclass(frozen=True)
class _Surroundings:
    """What a step runs in."""

    original: Network
    prepared: Prepared
    reporter: Reporter
    folder: Path
    keep: Callable[[str, Partial], None]
    partial: Partial | None


def _resumed(job: JobInput, network: Network, reporter: Reporter) -> checkpoint.Saved:
    """The state to start from: the checkpoint's, or the network as read where there is none that can be used."""
    fresh = checkpoint.Saved(Compressed(network), [])
    if job.resume is None:
        return fresh
    try:
        saved = checkpoint.load(job.resume, network)
    except InvalidModel as error:
        reporter.log(f"Starting over: {error.detail}", "warning")
        return fresh
    within = "" if saved.partial is None else ", within the next one"
    reporter.log(f"Continuing after step {len(saved.steps)} of {len(job.recipe.steps)}{within}, from a checkpoint.")
    return saved


def _step(
    job: JobInput, step: Step, before: Compressed, surroundings: _Surroundings
) -> tuple[Compressed, dict[str, Any]]:
    surroundings.folder.mkdir(parents=True, exist_ok=True)
    prepared = surroundings.prepared
    context = Context(
        grids={target: GRIDS[target] for target in job.targets},
        reporter=surroundings.reporter,
        folder=surroundings.folder,
        original=surroundings.original,
        calibration=prepared.split.calibration,
        training=prepared.split.training,
        device=job.device,
        threads=job.threads,
        seed=job.seed,
        task=prepared.task,
        saturating=saturates(),
        keep=surroundings.keep,
        resumed=surroundings.partial,
        models={name: functools.partial(formats.read, file.path, file.format) for name, file in job.models.items()},
    )
    started = time.monotonic()
    after = METHODS[type(step)](before.to(job.device), step, context).to("cpu")
    there = dict(after.network.module.named_parameters())
    after = replace(after, pruned=tuple(name for name in after.pruned if name in there))
    before.network.to("cpu")
    return after, {"method": step.method, "seconds": round(time.monotonic() - started, 3)}


def _export(
    job: JobInput, network: Network, compressed: Compressed, reporter: Reporter, scratch: Path
) -> list[_Exported]:
    """The float model and the artifact in each target's file; exporters are slow, so each runs once where it can."""
    part = Part(reporter, "exporting", *PHASES["exporting"])
    exported = []
    floats = Floats(network, scratch / "export" / "baseline")
    changed = floats
    if compressed.network is not network:
        changed = Floats(compressed.network, scratch / "export" / "changed")
    for index, target in enumerate(job.targets):
        within, started = part.slice(index, len(job.targets)), time.monotonic()
        within(0.0)
        baseline = TARGETS[target].export_float(floats)
        within(0.6)
        base = baseline if changed is floats else TARGETS[target].export_float(changed)
        artifact = job.output / file_name(job.filename, target, quantized=target in compressed.quantized)
        if target in compressed.quantized:
            TARGETS[target].export_quantized(compressed.quantized[target], base, artifact)
        else:
            artifact.write_bytes(base.path.read_bytes())
        exported.append(_Exported(target, baseline.path, artifact, time.monotonic() - started))
        within(1.0)
    return exported


def _measure(
    job: JobInput,
    network: Network,
    prepared: Prepared,
    exported: list[_Exported],
    facts: tuple[Figures, Figures],
    reporter: Reporter,
    scratch: Path,
) -> tuple[dict[str, Measured], list[str]]:
    part = Part(reporter, "measuring", *PHASES["measuring"])
    samples = prepared.split.evaluation
    setup = Setup(
        samples=samples,
        probe=probe_of(samples) if samples is not None else _random(network),
        task=prepared.measured,
        evaluation=_evaluation(job, prepared),
        batched=network.batched and all(spec.batched for spec in network.outputs),
        threads=job.threads,
        folder=scratch / "measure",
        cpu_flags=cpu_flags(),
    )
    measured, notes = {}, []
    for index, item in enumerate(exported):
        sides = Side(item.baseline, facts[0]), Side(item.artifact, facts[1])
        within = part.slice(index, len(exported))
        within(0.0)
        measured[item.target], found = compare(item.target, *sides, setup, reporter, within)
        for note in found:
            reporter.log(note, "warning")
        notes += found
        reporter.metric(f"artifacts.{item.target}", measured[item.target].artifact)
        within(1.0)
    return measured, notes


def _evaluation(job: JobInput, prepared: Prepared) -> dict[str, Any]:
    samples, source = prepared.split.evaluation, prepared.split.source
    given = source == "evaluation"
    return {
        "dataset_id": job.evaluation_dataset_id if given else job.provenance.get(f"{source}_dataset_id"),
        "samples": 0 if samples is None else len(samples),
        "source": source if given or not source else f"held back from {source}",
    }


def _random(network: Network) -> Samples:
    """A few samples of random numbers: something to take times with when no data was given."""
    inputs = random_inputs(network, batch=16 if network.batched else 1)
    return Samples({spec.name: value.numpy() for spec, value in zip(network.inputs, inputs, strict=True)})


def _made(job: JobInput, item: _Exported, told: dict[str, Any], timings: dict[str, Any]) -> Made:
    request = {
        "recipe": job.recipe.model_dump(mode="json"),
        "limits": job.limits.model_dump(mode="json"),
        "seed": job.seed,
        "task": job.task,
        "threads": job.threads,
        "device": job.device,
    }
    more = {**told, "timings": timings, **job.provenance}
    return describe(item.target, item.artifact, request, more)
