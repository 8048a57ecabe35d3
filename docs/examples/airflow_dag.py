"""Airflow 3: a model is compressed after each training. `pipeline_steps.py` lies beside it in the DAGs folder."""

import pendulum
import pipeline_steps
from airflow.sdk import dag, task


@dag(schedule=None, start_date=pendulum.datetime(2026, 1, 1), catchup=False, tags=["modelpress"])
def compress_model() -> None:
    """Upload, compress, keep what kept the limits."""
    ids = task(pipeline_steps.upload)("/data/model.pt2", "/data/calibration.npz", "/data/evaluation.npz")
    job = task(pipeline_steps.start)(ids)
    done = task(retries=3)(pipeline_steps.wait)(job)
    task(retries=0)(pipeline_steps.fetch)(done, "/data/compressed")


compress_model()
