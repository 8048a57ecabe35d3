"""LiteRT files hold int8 kernels on our own scales, run without torch, and say what they cannot hold."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from app.recipes.methods import QuantizeStatic
from tests.support.quantizable import build, compress, samples, sqnr_db
from worker.engine.errors import RuntimeFailure
from worker.engine.formats.lift import network_of
from worker.engine.measure.remote import Remote
from worker.engine.quantized.fake import fake_quantized
from worker.engine.quantized.observe import tensors
from worker.engine.targets import TARGETS
from worker.engine.targets.floats import Floats

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

TARGET = TARGETS["litert"]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, np.ndarray, dict[str, np.ndarray]]]:
    """A quantized file, what it should compute, and for which inputs."""
    folder, network = tmp_path_factory.mktemp("litert"), build("two_inputs")
    form = compress(network, QuantizeStatic(), folder, ("litert",)).quantized["litert"]
    path = TARGET.export_quantized(form, TARGET.export_float(Floats(network, folder)), folder / "q.tflite")
    inputs = dict(samples(network, 20, seed=2).inputs)
    with torch.no_grad():
        yield path, fake_quantized(form)(*tensors(inputs, network, "cpu"))[0].numpy(), inputs


def test_an_artifact_runs_alone_in_a_fresh_process_in_any_batch(artifact, tmp_path: Path) -> None:
    path, expected, inputs = artifact
    with Remote("litert", path, 1, tmp_path) as remote:
        remote.load(inputs)
        for batch in (1, 20):
            assert sqnr_db(expected, np.array(remote.run(batch)[0])) > 30


def test_the_session_loads_no_torch(artifact) -> None:
    path, _, _ = artifact
    code = (
        "import sys; from pathlib import Path; from worker.engine.runtimes.litert import open_session; "
        f"open_session(Path({str(path)!r}), 1); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_layers_are_integer_kernels_on_our_scales(artifact) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(artifact[0]))
    types = {np.dtype(detail["dtype"]).name for detail in interpreter.get_tensor_details()}
    assert types <= {"int8", "int32"}


def test_what_cannot_be_exported_is_told(tmp_path: Path) -> None:
    class Values(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.erfinv(x)

    network = network_of(Values(), (torch.zeros(2, 4),))
    with pytest.raises(RuntimeFailure, match="LiteRT") as caught:
        TARGET.export_float(Floats(network, tmp_path))
    assert caught.value.code == "export_failed"


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.tflite").write_bytes(b"nothing")
    with pytest.raises(RuntimeFailure, match="cannot load"):
        TARGET.session(tmp_path / "a.tflite", 1, False)
