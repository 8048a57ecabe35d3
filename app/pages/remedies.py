"""What helps when a job has failed, by its error's code; docs/errors.md says what each means."""

from app.jobs.schemas import JobView

_AGAIN = "Retry it: it goes on from its last checkpoint. If it fails so again, tell whoever runs this service."
_DATA = "Upload data that fits the model, and start the job anew with it."
_RECIPE = "Change the recipe: “Edit and run again” opens it with everything filled in."
_EXPORT = "Choose another target, or leave the layers out that the message names."

_HELP = {
    "limits_not_met": (
        "The artifacts and everything that was measured are below. Loosen the limit that failed, or choose a gentler "
        "recipe: “Edit and run again” opens this one with everything filled in."
    ),
    "model_rejected": "The page of the model says what is wrong with the file, and what would work.",
    "dataset_rejected": "The page of the dataset says what is wrong with the file, and what would work.",
    "pending_timeout": "No worker took it in time. Look whether one is running that offers its targets, then retry.",
    "run_timeout": "Raise timeouts → run_s under “Edit and run again”, or retry: it goes on from its last checkpoint.",
    "worker_lost": _AGAIN,
    "worker_fault": _AGAIN,
    "internal_error": _AGAIN,
    "job_process_died": _AGAIN,
    "input_missing": "The stored file is gone: upload it again.",
    "out_of_memory": "Use fewer samples or a smaller batch_size in the recipe, or a worker with more memory.",
    "storage_full": "Delete what is not needed any more, or ask whoever runs this service for more room; then retry.",
    "export_failed": _EXPORT,
    "runtime_failed": _EXPORT,
    "runtime_crashed": _EXPORT,
    "runtime_timeout": _EXPORT,
    "not_finite": "Look for NaN or infinity in the data, and whether it is scaled as it was in training.",
    "training_diverged": "Lower learning_rate in the recipe, and look for NaN in the training samples.",
    "too_few_samples": _DATA,
    "evaluation_data_required": "Give evaluation data under “Edit and run again”, or leave the limit out.",
    "labels_required": "Give data with a column “label”, or leave out the limit or step that needs labels.",
    "budget_too_small": "Raise the budget of the step, or let it choose among more layers or bits.",
    "target_unavailable": "Start a worker that offers this target, or choose another one.",
}
_BEGINNINGS = (("dataset_", _DATA), ("invalid_", _RECIPE), ("unknown_", _RECIPE), ("no_", _RECIPE))


def remedy(job: JobView) -> str | None:
    """What to do about the job's error; None where it has none."""
    if job.error is None:
        return None
    code = job.error.code
    found = _HELP.get(code) or next((text for beginning, text in _BEGINNINGS if code.startswith(beginning)), None)
    return found or "“Edit and run again” opens the job with everything filled in; change what the message names."
