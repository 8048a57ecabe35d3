"""Weights that are looked up in codebooks, in a file: it computes what was predicted, and takes the bits counted."""

from pathlib import Path

import torch
from torch import nn

from tests.support.quantizable import samples, sqnr_db
from worker.engine import checkpoint
from worker.engine.formats.lift import network_of
from worker.engine.network import Network
from worker.engine.quantized.fake import fake_quantized
from worker.engine.quantized.form import Quantization
from worker.engine.quantized.observe import tensors
from worker.engine.state import Compressed
from worker.engine.targets import TARGETS
from worker.engine.targets.floats import Floats


def network(width: int) -> Network:
    """Two convolutions, ``0`` and ``2``, and two linear layers, ``4`` and ``5``, with `width` between the latter."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.Flatten(), nn.Linear(256, width), nn.Linear(width, 10)
    )
    return network_of(module.eval(), (torch.randn(2, 3, 6, 6),))


def check_file(done: Compressed, target: str, network: Network, folder: Path) -> Quantization:
    """Save `done` as a checkpoint, load it, export it, run the file; what was loaded."""
    checkpoint.save(done, [], folder / "c.zip", network)
    form = checkpoint.load(folder / "c.zip", network).compressed.quantized[target]
    inputs = dict(samples(network, 8, seed=3).inputs)
    with torch.no_grad():
        predicted = fake_quantized(form)(*tensors(inputs, network, "cpu"))[0]
    exported = TARGETS[target].export_float(Floats(network, folder / "float"))
    path = TARGETS[target].export_quantized(form, exported, folder / f"q{TARGETS[target].suffix}")
    assert sqnr_db(predicted, TARGETS[target].session(path, 1, True).run(inputs)[0]) > 80
    if target == "onnxruntime":
        floats = sum(w.numel() for w in network.module.state_dict().values())
        kept = floats - sum(weight.shape.numel() for weight in form.weights.values())
        counted = sum(weight.stored_bits for weight in form.weights.values()) / 8 + 4 * kept
        assert path.stat().st_size < 1.05 * counted + 14_000
    return form
