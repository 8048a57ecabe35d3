"""ExecuTorch files hold int8 weights, leave nothing quantized to slow operators, and say what they cannot hold."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from app.recipes.methods import QuantizeDynamic, QuantizeStatic
from tests.support.quantizable import build, compress, samples, sqnr_db
from worker.engine.errors import RuntimeFailure
from worker.engine.formats.lift import network_of
from worker.engine.measure.remote import Remote
from worker.engine.quantized.decomposed import decomposed
from worker.engine.quantized.fake import fake_quantized
from worker.engine.quantized.observe import tensors
from worker.engine.targets import TARGETS
from worker.engine.targets.floats import Floats

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

TARGET = TARGETS["executorch"]


def test_an_artifact_runs_alone_in_a_fresh_process_in_any_batch(tmp_path: Path) -> None:
    network = build("two_inputs")
    form = compress(network, QuantizeStatic(), tmp_path, ("executorch",)).quantized["executorch"]
    exported = TARGET.export_float(Floats(network, tmp_path))
    path = TARGET.export_quantized(form, exported, tmp_path / "q.pte")
    held_out = samples(network, 20, seed=2)
    with torch.no_grad():
        expected = fake_quantized(form)(*tensors(dict(held_out.inputs), network, "cpu"))[0].numpy()
    with Remote("executorch", path, 1, tmp_path / "measure") as remote:
        remote.load(held_out.inputs)
        for batch in (1, 7, 20):
            assert sqnr_db(expected, np.array(remote.run(batch)[0])) > 30


def test_what_cannot_be_exported_is_told(tmp_path: Path) -> None:
    network = build("encoder")
    spec = network.inputs[0]
    network = type(network)(
        network.module, (type(spec)(spec.name, spec.dtype, ("batch", "tokens", 16)),), network.outputs, network.format
    )
    with pytest.raises(RuntimeFailure, match="sizes must be fixed") as caught:
        TARGET.export_float(Floats(network, tmp_path))
    assert caught.value.code == "export_failed"


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.pte").write_bytes(b"nothing")
    with pytest.raises(RuntimeFailure, match="cannot load"):
        TARGET.session(tmp_path / "a.pte", 1, False)


def test_a_convolution_without_an_integer_kernel_keeps_float_weights_on_their_grid(tmp_path: Path) -> None:
    network = network_of(nn.Conv2d(8, 8, 3, groups=8).eval(), (torch.randn(2, 8, 6, 6),))
    form = compress(network, QuantizeDynamic(), tmp_path, ("executorch",)).quantized["executorch"]
    module = decomposed(form, measured=lambda layer: False)
    inputs = torch.randn(3, 8, 6, 6)
    torch.testing.assert_close(module(inputs)[0], fake_quantized(form)(inputs)[0])
