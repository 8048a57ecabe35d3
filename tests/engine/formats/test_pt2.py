import subprocess
import sys

import pytest
import torch
from torch import nn

from tests.support.networks import ZOO, ResNet18, flat, make
from tests.support.pt2_files import save
from worker.engine import formats
from worker.engine.errors import Unsupported
from worker.engine.formats.lift import network_of


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(f"pt2-{name}")) for name in sorted(ZOO)]
)
def saved(request, tmp_path_factory):
    module = make(request.param)
    path = tmp_path_factory.mktemp("pt2") / "model.bin"  # the name says nothing
    return request.param, module, save(module, ZOO[request.param].inputs(2), path)


def assert_same(module, network, inputs, atol=1e-5):
    for expected, got in zip(flat(module(*inputs)), network.module(*inputs), strict=True):
        torch.testing.assert_close(got, expected, atol=atol, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Expect archive file")
def test_reads_what_pytorch_writes(saved):
    name, module, path = saved
    network = formats.read(path)
    assert network.format == "pt2"
    for batch in (1, 3, 8):
        assert_same(module, network, ZOO[name].inputs(batch))


def test_reading_gives_the_same_network_as_exporting_here(saved):
    name, module, path = saved
    read, exported = formats.read(path), network_of(module, ZOO[name].inputs(2))
    assert (read.inputs, read.outputs) == (exported.inputs, exported.outputs)
    assert [str(n.target) for n in read.module.graph.nodes] == [str(n.target) for n in exported.module.graph.nodes]
    assert [n for n, _ in read.module.named_parameters()] == [n for n, _ in exported.module.named_parameters()]


def test_written_files_are_read_back(saved, tmp_path):
    name, module, path = saved
    network, written = formats.read(path), tmp_path / "written.pt2"
    formats.WRITERS["pt2"](network, written)
    again = formats.read(written)
    assert (again.inputs, again.outputs) == (network.inputs, network.outputs)
    assert_same(module, again, ZOO[name].inputs(3))


def test_stock_pytorch_reads_what_is_written(tmp_path):
    """In a fresh interpreter; a tensor, a dictionary and a tuple of results."""
    for name in ("mlp", "transformer", "recurrent"):
        module, inputs = make(name), ZOO[name].inputs(3)
        formats.WRITERS["pt2"](network_of(module, ZOO[name].inputs(2)), tmp_path / f"{name}.pt2")
        torch.save((inputs, flat(module(*inputs))), tmp_path / f"{name}.expected")
    script = (
        "import pathlib, sys, torch\n"
        "files = sorted(pathlib.Path(sys.argv[1]).glob('*.pt2'))\n"
        "for file in files:\n"
        "    inputs, expected = torch.load(file.with_suffix('.expected'))\n"
        "    result = torch.export.load(file).module()(*inputs)\n"
        "    result = result.values() if isinstance(result, dict) else result\n"
        "    result = [result] if torch.is_tensor(result) else list(result)\n"
        "    [torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5) for a, b in zip(result, expected, strict=True)]\n"
        "sys.exit(len(files) != 3)\n"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path], check=True, cwd="/")


def test_a_written_file_is_hardly_larger_than_its_weights(tmp_path):
    network = network_of(ResNet18(1000).eval(), (torch.randn(2, 3, 64, 64),))
    formats.WRITERS["pt2"](network, tmp_path / "model.pt2")
    size = (tmp_path / "model.pt2").stat().st_size
    weights = sum(t.numel() * t.element_size() for t in network.module.state_dict().values())
    assert size < 1.02 * weights
    assert b"site-packages" not in (tmp_path / "model.pt2").read_bytes()
    again = formats.read(tmp_path / "model.pt2")
    assert again.parameters == 11_689_512


def test_weights_are_not_copied_and_the_file_is_not_changed_by_training(tmp_path):
    module = nn.Linear(4, 2)
    path = save(module, (torch.randn(2, 4),), tmp_path / "m.pt2")
    before = path.read_bytes()
    network = formats.read(path)
    with torch.no_grad():
        next(network.module.parameters()).add_(1)
    assert path.read_bytes() == before


def test_large_sample_inputs_are_reported(tmp_path):
    images = torch.randn(1000, 3, 16, 16)
    path = save(make("mobilenet"), (images[:2],), tmp_path / "m.pt2")
    assert path.stat().st_size > 3_000_000
    network = formats.read(path)
    assert any("sample inputs" in note for note in network.notes)


class Odd(nn.Module):
    def forward(self, x):
        return torch.linalg.svdvals(x), torch.fft.fft(x)


def test_unsupported_operators_are_all_named(tmp_path):
    path = save(Odd(), (torch.randn(2, 3, 3),), tmp_path / "m.pt2")
    with pytest.raises(Unsupported) as error:
        formats.read(path)
    assert error.value.code == "unsupported_operator"
    assert "aten.linalg_svdvals" in error.value.detail
    assert "aten.fft_fft" in error.value.detail


class Varied(nn.Module):
    """Arguments of many kinds: lists of tensors, of sizes, optional ones, types, strings, results in lists."""

    def __init__(self):
        super().__init__()
        self.register_buffer("offset", torch.arange(4.0))
        self.register_buffer("hidden", torch.ones(1), persistent=False)

    def forward(self, x, mask):
        a, b = x.chunk(2, 1)
        top, index = torch.cat([a, b, a], 1).topk(2, 1)
        rows = torch.arange(x.shape[0], device=x.device)
        y = torch.where(mask, x, self.offset.to(torch.float32)) + self.hidden
        z = nn.functional.gelu(y, approximate="tanh").to(torch.float64).sum(1, keepdim=True)
        picked = y[rows, :2] + torch.tensor([0.5, 1.0])
        with torch.no_grad():
            frozen = torch.einsum("bi,bj->bij", picked, top).view(x.shape[0], -1)
        return {"z": z, "more": (frozen, index, y.max(1).values)}


def test_arguments_of_many_kinds(tmp_path):
    inputs = torch.randn(2, 4), torch.tensor([True, False, True, True]).repeat(2, 1)
    network = formats.read(save(Varied(), inputs, tmp_path / "m.pt2"))
    assert [spec.name for spec in network.outputs] == ["z", "more_0", "more_1", "more_2"]
    assert [spec.dtype for spec in network.inputs] == ["float32", "bool"]
    assert_same(Varied(), network, (torch.randn(5, 4), torch.rand(5, 4) > 0.5))


def test_names_that_are_words_of_python(tmp_path):
    class Wordy(nn.Module):
        def __init__(self):
            super().__init__()
            self.torch = nn.Linear(3, 3)
            self.add_module("lambda", nn.Linear(3, 3))

        def forward(self, input, torch, device):
            return getattr(self, "lambda")(self.torch(input)) + torch + device

    inputs = tuple(torch.randn(2, 3) for _ in range(3))
    module = Wordy()
    network = formats.read(save(module, inputs, tmp_path / "m.pt2"))
    assert [spec.name for spec in network.inputs] == ["input", "torch", "device"]
    assert_same(module, network, inputs)
