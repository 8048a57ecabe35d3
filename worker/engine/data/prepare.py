"""From the dataset files of a job to the samples that its steps and its measurement use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from app.recipes.fit import further_label
from worker.engine.data import read, words
from worker.engine.data.labels import MEASURED, task_of
from worker.engine.data.match import match, require_batch
from worker.engine.data.samples import Samples
from worker.engine.data.split import Split, split

if TYPE_CHECKING:
    from worker.engine.network import TensorSpec, Tokenizer

#: What a job may be given, in the order in which it is read.
ROLES = ("evaluation", "training", "calibration")


@dataclass(frozen=True)
class Prepared:
    """The data of a job.

    Attributes:
        split: samples by use.
        task: as told, or as the labels show; None where neither says.
        measured: the task whose metric can be measured on the evaluation samples; None without labels.
        notes: for the user.
    """

    split: Split
    task: str | None
    measured: str | None
    notes: list[str] = field(default_factory=list)


def prepare(
    files: Mapping[str, Path],
    specs: tuple[Sequence["TensorSpec"], Sequence["TensorSpec"]],
    task: str | None,
    seed: int,
    folder: Path,
    tokenizer: "Tokenizer | None" = None,
) -> Prepared:
    """Read, check and split the datasets of a job.

    Args:
        files: role (see `ROLES`) -> file; a file that serves two roles appears twice.
        specs: the model's inputs and outputs.
        task: as the uploader said; None: told from the labels.
        seed: decides which samples are held back.
        folder: scratch folder.
        tokenizer: what the model came with; for datasets of text.

    Raises:
        UserError: a dataset that cannot be read or does not fit the model, or a model of a fixed batch size.
    """
    inputs, outputs = specs
    require_batch(inputs)
    given: dict[str, Samples] = {}
    told = task
    for role in ROLES:
        if role in files:
            given[role] = _read(files[role], specs, role, folder / role, tokenizer)
            labels = given[role].labels
            if labels is not None:
                told = task_of(labels, outputs[0], task)
            for spec in (spec for spec in outputs if spec.name in given[role].more):
                task_of(given[role].more[spec.name], spec, None, further_label(spec.name))
    parts = split(
        Split(given.get("calibration"), given.get("training"), given.get("evaluation")),
        seed,
        folder,
        same=_same(files, "calibration", "training"),
    )
    labelled = parts.evaluation is not None and parts.evaluation.labels is not None
    prepared = Prepared(parts, told, told if labelled and told in MEASURED else None)
    return replace(prepared, notes=_notes(files, prepared, labelled=labelled))


def _read(
    path: Path,
    specs: tuple[Sequence["TensorSpec"], Sequence["TensorSpec"]],
    role: str,
    folder: Path,
    tokenizer: "Tokenizer | None",
) -> Samples:
    inputs, outputs = specs
    folder.mkdir(parents=True, exist_ok=True)
    if not words.is_text(path):
        return match(read.read(path, folder), inputs, role, outputs)
    encoded = words.encode(path, tokenizer, role)
    taken = {spec.name for spec in inputs}
    return match({name: column for name, column in encoded.items() if name in taken}, inputs, role)


def _same(files: Mapping[str, Path], one: str, other: str) -> bool:
    """Whether two roles are given the same bytes."""
    if one not in files or other not in files:
        return False
    first, second = files[one], files[other]
    if first.samefile(second):
        return True
    if first.stat().st_size != second.stat().st_size:
        return False
    with first.open("rb") as a, second.open("rb") as b:
        while chunk := a.read(2**20):
            if chunk != b.read(len(chunk)):
                return False
    return True


def _notes(files: Mapping[str, Path], prepared: Prepared, *, labelled: bool) -> list[str]:
    notes = []
    source, evaluation = prepared.split.source, prepared.split.evaluation
    if evaluation is None:
        notes.append("No samples were given: size and latency are measured, accuracy and fidelity are not.")
    elif source != "evaluation":
        notes.append(
            f"No evaluation dataset was given: {len(evaluation)} samples of the {source} dataset were held back "
            "for the measurement and used by no step."
        )
    if evaluation is not None and not labelled:
        notes.append("The evaluation samples have no labels: fidelity is measured, the metric is not.")
    elif labelled and prepared.measured is None:
        notes.append(f"No metric is measured for task {prepared.task}; fidelity is.")
    notes += [
        f"The evaluation dataset is the same file as the {role} dataset: what was measured on it is too good."
        for role in ("calibration", "training")
        if _same(files, "evaluation", role)
    ]
    return notes
