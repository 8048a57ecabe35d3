"""Client of a Modelpress service: upload a trained model, follow its compression, download what was measured.

    from modelpress import Client, JobRequest

    with Client() as client:  # MODELPRESS_URL, MODELPRESS_KEY
        model = client.models.upload("model.pt2")
        data = client.datasets.upload("calibration.npz")
        job = client.jobs.create(JobRequest(model_id=model.id, calibration_dataset_id=data.id,
                                            recipe={"steps": [{"method": "quantize.static"}]},
                                            targets=["onnxruntime"]))
        job.wait().artifact("onnxruntime").download("out/")

`AsyncClient` has the same nouns and objects as coroutines. `export` saves a PyTorch module as a `.pt2` that
the service reads; `check` tells what will happen to a file before it is uploaded.
Errors: see `modelpress.errors`.
"""

from modelpress.administration_views import (
    AuditEvent,
    Delivery,
    JobCounts,
    Key,
    Quotas,
    Usage,
    UsageLimits,
    Webhook,
    Worker,
    Workspace,
)
from modelpress.blocking import LiveArtifact, LiveJob
from modelpress.catalog_views import Method, Named, Preset, Target
from modelpress.client import AsyncClient, Client
from modelpress.errors import (
    AuthenticationError,
    ConfigurationError,
    Conflict,
    ConnectionFailed,
    ExportError,
    Fault,
    IntegrityError,
    InvalidRequest,
    JobFailed,
    ModelpressError,
    NoArtifact,
    NoModel,
    NotFound,
    PermissionDenied,
    ProblemError,
    ProtocolError,
    RateLimited,
    ServiceError,
    WaitTimeout,
)
from modelpress.exporting import export
from modelpress.inspection import CheckReport, Operator, check
from modelpress.jobs import AsyncLiveJob
from modelpress.nouns import AsyncLiveArtifact
from modelpress.requests import JobRequest, Limits, Quota
from modelpress.resumable import UploadLimits, UploadState
from modelpress.retries import Retries
from modelpress.views import (
    Artifact,
    Change,
    Dataset,
    Estimate,
    Evaluation,
    Event,
    Fidelity,
    Gate,
    GateCheck,
    Job,
    Measurement,
    MetricDrop,
    Metrics,
    MetricValue,
    Model,
    Package,
    Page,
    Problem,
    StepEffect,
    TensorSpec,
)

__all__ = [
    "Artifact",
    "AsyncClient",
    "AsyncLiveArtifact",
    "AsyncLiveJob",
    "AuditEvent",
    "AuthenticationError",
    "Change",
    "CheckReport",
    "Client",
    "ConfigurationError",
    "Conflict",
    "ConnectionFailed",
    "Dataset",
    "Delivery",
    "Estimate",
    "Evaluation",
    "Event",
    "ExportError",
    "Fault",
    "Fidelity",
    "Gate",
    "GateCheck",
    "IntegrityError",
    "InvalidRequest",
    "Job",
    "JobCounts",
    "JobFailed",
    "JobRequest",
    "Key",
    "Limits",
    "LiveArtifact",
    "LiveJob",
    "Measurement",
    "Method",
    "MetricDrop",
    "MetricValue",
    "Metrics",
    "Model",
    "ModelpressError",
    "Named",
    "NoArtifact",
    "NoModel",
    "NotFound",
    "Operator",
    "Package",
    "Page",
    "PermissionDenied",
    "Preset",
    "Problem",
    "ProblemError",
    "ProtocolError",
    "Quota",
    "Quotas",
    "RateLimited",
    "Retries",
    "ServiceError",
    "StepEffect",
    "Target",
    "TensorSpec",
    "UploadLimits",
    "UploadState",
    "Usage",
    "UsageLimits",
    "WaitTimeout",
    "Webhook",
    "Worker",
    "Workspace",
    "check",
    "export",
]
