"""Prefect 3: the same steps as a flow. `python prefect_flow.py model.pt2 calibration.npz evaluation.npz out`."""

import sys

import pipeline_steps
from prefect import flow, task

upload = task(pipeline_steps.upload)
start = task(pipeline_steps.start)
wait = task(pipeline_steps.wait, retries=3)
fetch = task(pipeline_steps.fetch, retries=0)


@flow(name="compress-model")
def compress_model(model: str, calibration: str, evaluation: str, folder: str) -> list[str]:
    """Upload, compress, keep what kept the limits."""
    return fetch(wait(start(upload(model, calibration, evaluation))), folder)


if __name__ == "__main__":
    compress_model(*sys.argv[1:5])
