"""Every artifact computes what fake quantization predicts, and little else than the float network."""

from pathlib import Path

import numpy as np
import pytest
import torch

from app.recipes import Step
from app.recipes.methods import QuantizeDynamic, QuantizeStatic
from tests.support.quantizable import NETWORKS, build, compress, samples, sqnr_db
from worker.engine.quantized.fake import fake_quantized
from worker.engine.quantized.observe import tensors
from worker.engine.targets import TARGETS

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

STEPS = {"static": QuantizeStatic(), "dynamic": QuantizeDynamic()}
#: dB. Kernels round half a step differently now and then; a wrong scale anywhere gives less than 20.
AGREEMENT = 30.0
FIDELITY = {"static": 22.0, "dynamic": 28.0}


@pytest.mark.parametrize("target", sorted(TARGETS))
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_artifacts_agree(name: str, target: str, tmp_path: Path) -> None:
    network = build(name)
    held_out = samples(network, 16, seed=2)
    inputs = dict(held_out.inputs)
    exported = TARGETS[target].export_float(network, tmp_path)
    with torch.no_grad():
        floats = [value.numpy() for value in network.module(*tensors(inputs, network, "cpu"))]
    baseline = TARGETS[target].session(exported.path, 1, True).run(inputs)
    for expected, got in zip(floats, baseline, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)
    for label, step in STEPS.items():
        check_step(label, step, target, network, exported, inputs, floats, tmp_path)


def check_step(label: str, step: Step, target: str, network, exported, inputs, floats, folder: Path) -> None:
    quantization = compress(network, step, folder, (target,)).quantized[target]
    path = TARGETS[target].export_quantized(
        network, quantization, exported, folder / f"{label}{TARGETS[target].suffix}"
    )
    outputs = TARGETS[target].session(path, 1, True).run(inputs)
    with torch.no_grad():
        predicted = [value.numpy() for value in fake_quantized(quantization)(*tensors(inputs, network, "cpu"))]
    assert len(outputs) == len(floats)
    for expected, fake, got in zip(floats, predicted, outputs, strict=True):
        assert sqnr_db(fake, got) > AGREEMENT, label
        assert sqnr_db(expected, got) > FIDELITY[label], label
