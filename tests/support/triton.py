"""Triton's ``ModelConfig`` as its own client has it, without the client, which would need gRPC."""

import importlib.metadata
import importlib.util
from typing import Any


def _model_config() -> Any:
    file = importlib.metadata.distribution("tritonclient").locate_file("tritonclient/grpc/model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("model_config_pb2", str(file))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ModelConfig


ModelConfig = _model_config()
