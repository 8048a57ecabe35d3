"""TensorRT on a GPU: the engine computes what fake quantization predicts."""

from pathlib import Path

import pytest
import torch

from app.recipes.methods import QuantizeStatic
from tests.support.quantizable import build, compress, samples, sqnr_db
from worker.engine.quantized.fake import fake_quantized
from worker.engine.quantized.observe import tensors
from worker.engine.targets import TARGETS
from worker.engine.targets.floats import Floats

WHY = TARGETS["tensorrt"].available()
pytestmark = pytest.mark.skipif(WHY is not None, reason=str(WHY))


@pytest.mark.parametrize("name", ["residual", "two_inputs", "encoder"])
def test_an_engine_agrees(name: str, tmp_path: Path) -> None:
    target, network = TARGETS["tensorrt"], build(name)
    form = compress(network, QuantizeStatic(), tmp_path, ("tensorrt",)).quantized["tensorrt"]
    exported = target.export_float(Floats(network, tmp_path))
    inputs = dict(samples(network, 16, seed=2).inputs)
    got = target.session(target.export_quantized(form, exported, tmp_path / "q.zip"), 1, True).run(inputs)
    with torch.no_grad():
        expected = fake_quantized(form)(*tensors(inputs, network, "cpu"))
    assert all(sqnr_db(one.numpy(), other) > 30 for one, other in zip(expected, got, strict=True))
