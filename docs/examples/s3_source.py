"""A model and its data that lie in a bucket: the service copies them itself, nothing passes through this machine.

The operator allows the place (`MODELPRESS_SOURCES='["s3://models/trained"]'`) and gives the service its credentials.

    python s3_source.py s3://models/trained/net.pt2 s3://models/trained/calibration.npz
"""

import sys

from modelpress import Client, JobRequest


def compress(client: Client, model: str, calibration: str) -> str:
    """Queues a job for a model and data at `s3://...`; its id."""
    request = JobRequest(
        model_id=client.models.create(_name(model), source=model).id,
        calibration_dataset_id=client.datasets.create(_name(calibration), source=calibration).id,
        recipe="preset:fast",
        targets=["onnxruntime"],
    )
    return client.jobs.create(request).id


def _name(source: str) -> str:
    return source.rpartition("/")[2]


if __name__ == "__main__":
    with Client() as service:  # MODELPRESS_URL and MODELPRESS_KEY
        sys.stdout.write(f"{compress(service, *sys.argv[1:])}\n")
