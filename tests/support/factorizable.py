"""Running factorization steps, and comparing what comes out with what went in."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from app.recipes import TARGETS as GRIDS
from app.recipes import Step
from tests.support.quantizable import Notebook
from worker.engine import checkpoint, formats
from worker.engine.data.samples import Samples
from worker.engine.formats.pt2_writer import write_pt2
from worker.engine.measure.macs import count_macs, random_inputs
from worker.engine.methods import METHODS
from worker.engine.network import Network
from worker.engine.state import Compressed, Context
from worker.engine.targets.onnx_export import export_onnx


def run(network: Network, step: Step, folder: Path, samples: Samples | None = None, **context: Any) -> Compressed:
    """One step alone, for ONNX Runtime."""
    surroundings = Context({"onnxruntime": GRIDS["onnxruntime"]}, Notebook(), folder, calibration=samples, **context)
    return METHODS[type(step)](Compressed(network), step, surroundings)


def drawn(network: Network, count: int = 64, seed: int = 0) -> Samples:
    """Samples that the network takes: normal numbers, or zeros for indices."""
    parts = [random_inputs(network, 16, seed + at) for at in range(count // 16)]
    arrays = [torch.cat(values).numpy() for values in zip(*parts, strict=True)]
    return Samples({spec.name: array for spec, array in zip(network.inputs, arrays, strict=True)})


def outputs(network: Network, inputs: tuple[Tensor, ...]) -> list[np.ndarray]:
    with torch.no_grad():
        return [value.numpy() for value in network.module(*inputs)]


def assert_same_everywhere(network: Network, folder: Path) -> None:
    """The network computes the same from its ``.pt2``, from a checkpoint, and as ONNX in ONNX Runtime."""
    inputs = random_inputs(network, 5 if network.batched else 1, 7)
    expected = outputs(network, inputs)
    write_pt2(network, folder / "again.pt2")
    again = formats.read(folder / "again.pt2")
    assert {name for name, _ in again.module.named_parameters()} == {n for n, _ in network.module.named_parameters()}
    assert again.parameters == network.parameters
    checkpoint.save(Compressed(network), [], folder / "c.zip")
    loaded = checkpoint.load(folder / "c.zip", again).compressed.network
    assert [node.name for node in loaded.module.graph.nodes] == [node.name for node in network.module.graph.nodes]
    exported = export_onnx(network, folder / "onnx")
    session = onnxruntime.InferenceSession(exported.path)
    feeds = {spec.name: value.numpy() for spec, value in zip(network.inputs, inputs, strict=True)}
    for other in (outputs(again, inputs), outputs(loaded, inputs), session.run(None, feeds)):
        for one, two in zip(expected, other, strict=True):
            np.testing.assert_allclose(two, one, rtol=1e-3, atol=1e-4 * max(1.0, float(np.abs(one).max())))


def macs(network: Network) -> int:
    return sum(count_macs(network).values())
