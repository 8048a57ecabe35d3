"""Turns a lease into what the job's process finds in its folder: inputs, checkpoint, assignment."""

import asyncio
import logging
from pathlib import Path
from typing import Any, cast

from app.jobs.outcomes import Lease
from app.storage import ObjectStore
from app.tables import Checkpoint
from worker.runner.folder import JobFolder, UntrustedFileError, unpack_checkpoint
from worker.runner.messages import ASSIGNMENT, Assignment, ModelFile
from worker.runner.slot import Slot

log = logging.getLogger(__name__)

#: Role of an input -> field of the assignment that holds its path; any other role is the id of a step's model.
_ROLES = ("model", "dataset", "calibration", "evaluation", "training")


async def prepare(
    lease: Lease, slot: Slot, store: ObjectStore, folder: JobFolder, checkpoint: Checkpoint | None
) -> None:
    """Fetches every input (verifying its digest) and writes the assignment.

    Raises:
        ObjectMissing: the store lost an input.
        OSError: no room, or the store cannot be read.
    """
    paths: dict[str, Path] = {}
    fetched: dict[str, Path] = {}
    for role, file in lease.inputs.items():
        if file.sha256 not in fetched:
            fetched[file.sha256] = folder.inputs / (role + _suffix(file.filename))
            await store.get_file(lease.workspace_id, file.sha256, fetched[file.sha256])
        paths[role] = fetched[file.sha256]
    continued = await _fetch_checkpoint(lease, slot, store, folder, checkpoint) if checkpoint else None
    assignment = _assignment(lease, slot, folder, paths, continued)
    (folder.path / ASSIGNMENT).write_text(assignment.model_dump_json())


def _assignment(
    lease: Lease, slot: Slot, folder: JobFolder, paths: dict[str, Path], checkpoint: Path | None
) -> Assignment:
    model, dataset = lease.inputs.get("model"), lease.inputs.get("dataset")
    evaluation = lease.inputs.get("evaluation")
    named = dataset if lease.kind == "check_dataset" else model
    return Assignment(
        kind=cast(Any, lease.kind),
        output=folder.output,
        **{role: paths[role] for role in _ROLES if role in paths},
        models={
            role: ModelFile(path=path, format=lease.inputs[role].format)
            for role, path in paths.items()
            if role not in _ROLES
        },
        model_format=model.format if model else None,
        task=model.task if model else None,
        dataset_kind=dataset.kind if dataset else None,
        filename=named.filename if named else None,
        evaluation_dataset_id=evaluation.id if evaluation else None,
        recipe=dict(lease.recipe) if lease.recipe else None,
        targets=tuple(lease.targets),
        limits=dict(lease.request.get("limits") or {}),
        seed=int(lease.request.get("seed") or 0),
        threads=slot.threads,
        device=slot.device,
        checkpoint=checkpoint,
        provenance=_provenance(lease, slot),
    )


def _provenance(lease: Lease, slot: Slot) -> dict[str, Any]:
    """What the manifest of every artifact says beside what the engine itself knows."""
    return {
        "job_id": lease.job_id,
        "attempt": lease.attempt,
        **{f"{role}_dataset_id": file.id for role, file in lease.inputs.items() if role in _ROLES[1:]},
        "inputs": {
            role: {"id": file.id, "sha256": file.sha256, "size_bytes": file.size_bytes, "filename": file.filename}
            for role, file in lease.inputs.items()
        },
        "worker": {"queue": slot.offer.queue, **slot.offer.capabilities},
    }


async def _fetch_checkpoint(
    lease: Lease, slot: Slot, store: ObjectStore, folder: JobFolder, checkpoint: Checkpoint
) -> Path | None:
    """The unpacked checkpoint; None (start over) where it is not usable."""
    archive, target = folder.taken / "checkpoint.zip", folder.inputs / "checkpoint"
    await store.get_file(lease.workspace_id, checkpoint.sha256, archive)
    try:
        await asyncio.to_thread(unpack_checkpoint, archive, target, slot.settings.job_file_bytes)
    except UntrustedFileError as error:
        log.warning("job %s starts over: %s", lease.job_id, error)
        return None
    finally:
        archive.unlink()
    return target


def _suffix(filename: str) -> str:
    """The extension that the uploader used, where it is a plain one: readers of weights look at it."""
    suffix = Path(filename).suffix
    return suffix if suffix[1:].isalnum() and suffix.isascii() and len(suffix) <= 16 else ""
