"""Float files of networks that many tests quantize: exporters are slow."""

from pathlib import Path

from worker.engine.network import Network
from worker.engine.targets import TARGETS
from worker.engine.targets.float_export import FloatExport
from worker.engine.targets.floats import Floats


class Exports:
    """The float files of a network, each made when it is first asked for."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.network = network
        self._floats = Floats(network, folder)
        self._made: dict[str, FloatExport] = {}

    def of(self, target: str) -> FloatExport:
        """The network as the target reads it in float."""
        if target not in self._made:
            self._made[target] = TARGETS[target].export_float(self._floats)
        return self._made[target]
