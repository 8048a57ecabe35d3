"""Which formats Triton serves, with which backend; and why it does not serve the others."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from app.artifacts.packages import contents


@dataclass(frozen=True)
class Backend:
    """A backend of Triton, and how the files that it wants are found."""

    name: str
    contents: contents.Contents


#: Format of the artifact -> backend.
BACKENDS: Final[Mapping[str, Backend]] = {
    "onnx": Backend("onnxruntime", contents.onnx),
    "openvino": Backend("openvino", contents.openvino),
}
_INSTEAD: Final = "compress for the target onnxruntime or openvino"
#: Format of the artifact -> why no backend serves it.
UNSERVED: Final[Mapping[str, str]] = {
    "pt2": "Triton's PyTorch backend runs TorchScript and packages that AOTInductor compiled for one machine; this "
    f".pt2 is an exported program, which it does not load: {_INSTEAD}",
    "pte": f"Triton has no backend for ExecuTorch: {_INSTEAD}",
    "tflite": f"Triton has no backend for LiteRT: {_INSTEAD}",
    "tensorrt": "an engine runs only with the TensorRT and the GPU model that it was built with, which a package "
    "cannot promise: build one from the ONNX in the artifact, on the server",
}


def why_unserved(format: str) -> str:
    """Why an artifact of that format cannot be packaged."""
    return UNSERVED.get(format, f"Triton has no backend for {format!r}: {_INSTEAD}")
