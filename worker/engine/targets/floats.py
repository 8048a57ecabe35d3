"""The float exports of one network, each made once: exporters are slow, and several targets start from ONNX."""

from functools import cached_property
from pathlib import Path

from worker.engine.network import Network
from worker.engine.targets.float_export import FloatExport
from worker.engine.targets.onnx_export import export_onnx


class Floats:
    """What targets make their baselines from.

    Attributes:
        network: as it is; exports fold its batch norms.
        folder: where the files go; made where it is not there.
    """

    def __init__(self, network: Network, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.network = network
        self.folder = folder

    @cached_property
    def onnx(self) -> FloatExport:
        """The network as ``float.onnx``. Raises `RuntimeFailure` (``export_failed``)."""
        return export_onnx(self.network, self.folder)
