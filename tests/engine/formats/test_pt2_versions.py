"""Files that each PyTorch version wrote (`tests/support/pt2_versions.py`), read here."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.pt2_files import entries, rebuild
from worker.engine import formats

FOLDER = Path(__file__).parent / "pt2_files"
FILES = sorted(FOLDER.glob("*/*.pt2"))
VERSIONS = sorted({path.parent.name for path in FILES}, key=lambda version: [int(n) for n in version.split(".")])

INPUTS = {
    "residual": {"image": ("batch", 2, 6, 6)},
    "attention": {"ids": ("batch", "tokens"), "mask": ("batch", "tokens")},
    "recurrent": {"signal": ("batch", 7, 4)},
    "sliced": {"x": ("batch", 16)},
}
OUTPUTS = {
    "residual": {"output": ("batch", 3)},
    "attention": {"logits": ("batch", "tokens", 12), "pooled": ("batch", 8)},
    "recurrent": {"output_0": ("batch", 7, 2), "output_1": ("batch", 2, 5)},
    "sliced": {"output": ("batch", 2)},
}
LAYERS = {
    "residual": {"stem.0", "stem.1", "body", "norm", "head"},
    "attention": {"embedding", "query", "key", "value", "norm", "up", "down", "decoder"},
    "recurrent": {"lstm", "head"},
    "sliced": {"layer"},
}


def shapes(specs):
    """Shapes by name; the version chooses how a symbol other than the batch is called."""
    named = {spec.name: spec.shape for spec in specs}
    return {
        name: tuple("tokens" if isinstance(dim, str) and dim != "batch" else dim for dim in shape)
        for name, shape in named.items()
    }


def test_there_are_files_of_every_version():
    assert [version.rpartition(".")[0] for version in VERSIONS] == [f"2.{minor}" for minor in range(6, 15)]
    assert len(FILES) == len(VERSIONS) * len(INPUTS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_network_computes_what_that_version_did(path):
    network = formats.read(path)
    arrays = np.load(path.with_suffix(".npz"))
    inputs = [torch.from_numpy(arrays[name]) for name in sorted(arrays) if name.startswith("input")]
    expected = [torch.from_numpy(arrays[name]) for name in sorted(arrays) if name.startswith("output")]
    with torch.no_grad():
        results = network.module(*inputs)
    for result, value in zip(results, expected, strict=True):
        torch.testing.assert_close(result, value, atol=1e-5, rtol=1e-5)
    assert shapes(network.inputs) == INPUTS[path.stem]
    assert shapes(network.outputs) == OUTPUTS[path.stem]
    layers = {
        name for name, module in network.module.named_modules() if next(module.parameters(False), None) is not None
    }
    assert layers - {""} == LAYERS[path.stem]
    assert network.notes == []


@pytest.mark.parametrize("version", VERSIONS)
def test_shared_weights_stay_shared(version):
    module = formats.read(FOLDER / version / "attention.pt2").module
    assert module.embedding.weight is module.decoder.weight


@pytest.mark.parametrize("version", VERSIONS)
def test_sample_inputs_are_left_alone(version, tmp_path):
    """A slice of a large tensor, whose memory is in the file; or bytes that are no pickle at all."""
    path = FOLDER / version / "sliced.pt2"
    assert path.stat().st_size > 16_000  # of 250 samples
    content = entries(path)
    name = next(name for name in content if "inputs" in name)
    network = formats.read(rebuild({**content, name: b"\x80" * (2 << 20)}, tmp_path / "m"))
    assert any("2.1 MB of sample inputs" in note for note in network.notes)
    assert formats.read(rebuild({n: c for n, c in content.items() if n != name}, tmp_path / "m")).parameters == 34
