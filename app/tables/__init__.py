"""SQLAlchemy tables, one file each noun."""

from app.tables.accounts import IdempotencyKey, Key, Workspace
from app.tables.base import Base, new_id
from app.tables.jobs import DATASETS, Artifact, Checkpoint, EstimateRatio, Job, JobEvent, Metric, Worker
from app.tables.uploads import Blob, Dataset, Model

__all__ = [
    "DATASETS",
    "Artifact",
    "Base",
    "Blob",
    "Checkpoint",
    "Dataset",
    "EstimateRatio",
    "IdempotencyKey",
    "Job",
    "JobEvent",
    "Key",
    "Metric",
    "Model",
    "Worker",
    "Workspace",
    "new_id",
]
