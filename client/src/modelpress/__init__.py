"""Client of a Modelpress service: upload a trained model, follow its compression, download what was measured.

    from modelpress import Client, JobRequest

    with Client() as client:  # MODELPRESS_URL, MODELPRESS_KEY
        model = client.models.upload("model.pt2")
        data = client.datasets.upload("calibration.npz")
        job = client.jobs.create(JobRequest(model_id=model.id, calibration_dataset_id=data.id,
                                            recipe={"steps": [{"method": "quantize.static"}]},
                                            targets=["onnxruntime"]))
        job = client.jobs.wait(job.id)
        client.artifacts.download(job.artifacts[0].id, "out/")

`AsyncClient` has the same nouns as coroutines. `export` saves a PyTorch module as a `.pt2` that
the service reads; `check` tells what will happen to a file before it is uploaded.
Errors: see `modelpress.errors`.
"""

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
    ModelpressError,
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
from modelpress.requests import JobRequest, Limits
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
    Key,
    Measurement,
    MetricDrop,
    Metrics,
    MetricValue,
    Model,
    Named,
    Page,
    Problem,
    StepEffect,
    TensorSpec,
    Workspace,
)

__all__ = [
    "Artifact",
    "AsyncClient",
    "AuthenticationError",
    "Change",
    "CheckReport",
    "Client",
    "ConfigurationError",
    "Conflict",
    "ConnectionFailed",
    "Dataset",
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
    "JobRequest",
    "Key",
    "Limits",
    "Measurement",
    "MetricDrop",
    "MetricValue",
    "Metrics",
    "Model",
    "ModelpressError",
    "Named",
    "NotFound",
    "Operator",
    "Page",
    "PermissionDenied",
    "Problem",
    "ProblemError",
    "ProtocolError",
    "RateLimited",
    "Retries",
    "ServiceError",
    "StepEffect",
    "TensorSpec",
    "WaitTimeout",
    "Workspace",
    "check",
    "export",
]
