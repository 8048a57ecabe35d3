"""SQLAlchemy tables, one file each noun."""

from app.tables.accounts import AuditEvent, IdempotencyKey, Key, UploadSlot, Workspace
from app.tables.base import Base, new_id
from app.tables.counts import Count
from app.tables.jobs import DATASETS, Artifact, Checkpoint, EstimateRatio, Job, JobEvent, Metric, Worker
from app.tables.uploads import Blob, Dataset, Model, ResumableUpload, UploadPart
from app.tables.webhooks import Webhook, WebhookDelivery

__all__ = [
    "DATASETS",
    "Artifact",
    "AuditEvent",
    "Base",
    "Blob",
    "Checkpoint",
    "Count",
    "Dataset",
    "EstimateRatio",
    "IdempotencyKey",
    "Job",
    "JobEvent",
    "Key",
    "Metric",
    "Model",
    "ResumableUpload",
    "UploadPart",
    "UploadSlot",
    "Webhook",
    "WebhookDelivery",
    "Worker",
    "Workspace",
    "new_id",
]
