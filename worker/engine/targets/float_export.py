"""A float network in the file of a target."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from onnx import ModelProto

from worker.engine.network import Network


@dataclass(frozen=True)
class FloatExport:
    """The float baseline in a target's file; made once per network, since exporters are slow.

    Attributes:
        path: the file, as a user would get it.
        network: what was exported: the given network with batch norms folded.
        onnx: the graph that quantized files are derived from, left as it is; None where the target needs none.
        values: FX node name -> name of its value in `onnx`.
    """

    path: Path
    network: Network
    onnx: ModelProto | None = None
    values: Mapping[str, str] = field(default_factory=dict)
