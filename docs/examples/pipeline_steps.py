"""What pipelines do with Modelpress, as plain functions: `airflow_dag.py` and `prefect_flow.py` make tasks of them.

Results are text and lists of text, so that any orchestrator can store them between tasks.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from modelpress import Client, JobRequest, Limits

LIMITS: Limits = {"max_metric_drop": 0.01, "max_size_ratio": 0.5}


def upload(model: str, calibration: str, evaluation: str) -> dict[str, str]:
    """Uploads the model and its data; the ids, by field of a job."""
    with Client() as client:  # MODELPRESS_URL and MODELPRESS_KEY
        return {
            "model_id": client.models.upload(model).id,
            "calibration_dataset_id": client.datasets.upload(calibration).id,
            "evaluation_dataset_id": client.datasets.upload(evaluation).id,
        }


def start(ids: Mapping[str, str], targets: Sequence[str] = ("onnxruntime",), name: str = "pipeline") -> str:
    """Queues the job; its id. Apart from `wait`: a wait that is tried again starts no second job."""
    request = JobRequest(
        **ids, recipe={"steps": [{"method": "quantize.static"}]}, targets=list(targets), limits=LIMITS, name=name
    )
    with Client() as client:
        return client.jobs.create(request).id


def wait(job_id: str, timeout_s: float = 3600) -> str:
    """Waits for the end of the job, whatever it is: an orchestrator may try again what fails here."""
    with Client() as client:
        return client.jobs.wait(job_id, timeout_s=timeout_s).id


def fetch(job_id: str, folder: str) -> list[str]:
    """Downloads the artifacts, and their paths; fails where a limit is broken, which trying again does not mend."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    with Client() as client:
        job = client.jobs.get(job_id)
        if job.state != "succeeded":
            raise RuntimeError(f"job {job.id} {job.state}: {job.error.code if job.error else 'no error was told'}")
        return [str(client.artifacts.download(one.id, folder)) for one in job.artifacts or ()]
