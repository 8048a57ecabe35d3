"""What KServe loads: a model repository for its Triton runtime, and the resource that asks for it (v1beta1)."""

import re
from typing import Final

from app.artifacts.packages import triton
from app.artifacts.packages.subject import Subject
from app.web.archive import Entry

#: Goes to the place that `storageUri` names; the server sees nothing else.
FOLDER: Final = "models"
_MOST: Final = 63
_SERVICE: Final = """\
# Copy the folder {folder}/ to your storage, let storageUri name it there, and apply this file with kubectl.
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {service}
  annotations:
    modelpress-artifact: "{artifact}"
    modelpress-sha256: "{sha256}"
spec:
  predictor:
    model:
      modelFormat:
        name: triton
        version: "2"
      runtime: kserve-tritonserver
      protocolVersion: v2
      storageUri: s3://BUCKET/{folder}
"""


def entries(subject: Subject) -> list[Entry]:
    """``inference-service.yaml`` and ``models/``, which is the model repository."""
    told = _SERVICE.format(
        folder=FOLDER, service=_service(subject.name), artifact=subject.artifact_id, sha256=subject.sha256
    )
    return [Entry("inference-service.yaml", told.encode()), *triton.entries(subject, f"{FOLDER}/")]


def _service(name: str) -> str:
    """A name that Kubernetes takes for a service (RFC 1035 label)."""
    label = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "model"
    return (label if label[0].isalpha() else f"model-{label}")[:_MOST].rstrip("-")
