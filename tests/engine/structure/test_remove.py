"""Removed channels are gone, and the network answers as if they were zero."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support import onnx_models
from tests.support.architectures import ARCHITECTURES, export
from tests.support.channels import agree, built, drawn, exact, half, masked
from worker.engine import formats
from worker.engine.formats.lift import network_of
from worker.engine.formats.pt2 import read_pt2
from worker.engine.formats.pt2_writer import write_pt2
from worker.engine.measure.macs import count_macs
from worker.engine.network import Network
from worker.engine.structure import Structure, analyse, remove
from worker.engine.targets.onnx_export import export_onnx

#: Networks that have nothing to remove, and why.
NOTHING = {"gru": "hidden states"}
#: Where every convolution and linear layer but the last gets smaller: parameters left at half the channels, at most.
SMALL = {
    "plain": 0.35, "vgg": 0.3, "resnet18": 0.3, "densenet": 0.35, "mobilenet": 0.4, "shufflenet": 0.55, "unet": 0.3,
    "two_tasks": 0.35, "vit": 0.4, "bert": 0.35, "roberta": 0.4, "distilbert": 0.4, "swin": 0.35, "segformer": 0.4,
    "causal": 0.4, "wavenet": 0.35, "tabular": 0.45, "video": 0.4, "inception": 0.4, "hf_resnet": 0.4,
}  # fmt: skip


def smaller(network: Network, seed: int = 0) -> tuple[Network, Structure]:
    structure = analyse(network)
    return remove(network, structure, half(structure, seed)), structure


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_half_of_everything_goes(name: str, tmp_path: Path) -> None:
    network = built(name)
    before = {key: value.clone() for key, value in network.module.state_dict().items()}
    structure = analyse(network)
    keep = half(structure)
    small = remove(network, structure, keep)
    if name in NOTHING:
        assert structure.families == ()
        assert any(NOTHING[name] in reason for reason in structure.left.values())
        return
    whole = structure.everything()
    assert structure.macs(whole) == sum(count_macs(network).values())
    assert structure.parameters(whole) == network.parameters
    assert structure.macs(keep) == sum(count_macs(small).values())
    assert structure.parameters(keep) == small.parameters < network.parameters
    assert small.parameters <= SMALL.get(name, 1.0) * network.parameters
    write_pt2(small, tmp_path / "small.pt2")
    inputs = drawn(name)
    agree(read_pt2(tmp_path / "small.pt2").module, small.module, inputs)
    for key, value in network.module.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


@pytest.mark.parametrize("name", sorted(set(ARCHITECTURES) - set(NOTHING)))
def test_the_answer_is_that_of_zeros(name: str) -> None:
    network = built(name)
    structure = analyse(network)
    keep = exact(structure, half(structure, 1), network)
    if name in ("convnextv2", "causal"):  # norms that are written out, over all that is left
        keep[:] = True
        keep[structure.families[-1].units][::2] = False
    small = remove(network, structure, keep)
    inputs = drawn(name)
    agree(small.module, masked(network, structure, keep), inputs, 1e-4)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet", "shufflenet", "unet", "vit", "lstm", "masked_encoder"])
def test_onnx_runtime_agrees(name: str, tmp_path: Path) -> None:
    small, _ = smaller(built(name))
    exported = export_onnx(small, tmp_path)
    inputs = drawn(name)
    got = onnx_models.runtime(exported.path, *(value.numpy() for value in inputs))
    with torch.no_grad():
        for mine, theirs in zip(small.module(*inputs), got, strict=True):
            np.testing.assert_allclose(mine.numpy(), theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("name", ["resnet18", "transformer", "shufflenet"])
def test_graphs_read_from_onnx(name: str, exporter: str, tmp_path: Path) -> None:
    export(ARCHITECTURES[name], exporter, tmp_path / "model.onnx", 17 if exporter == "torchscript" else None)
    network = formats.read(tmp_path / "model.onnx")
    small, structure = smaller(network)
    assert len(structure.families) >= len(analyse(built(name)).families) - 1
    assert small.parameters < 0.8 * network.parameters
    assert small.source is None
    exported = export_onnx(small, tmp_path)
    inputs = [value.numpy() for value in drawn(name)]
    session = onnxruntime.InferenceSession(str(exported.path))
    got = session.run(None, dict(zip([value.name for value in session.get_inputs()], inputs, strict=True)))
    with torch.no_grad():
        mine = small.module(*map(torch.from_numpy, inputs))
    np.testing.assert_allclose(mine[0].numpy(), got[0], atol=1e-4, rtol=1e-4)


def test_sizes_written_as_constants_follow(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    node = onnx.helper.make_node
    constants = {
        "w": random.standard_normal((16, 3, 3, 3)).astype(np.float32),
        "v": random.standard_normal((16 * 16, 5)).astype(np.float32),
        "four": np.array([2, 16, 16], np.int64),
        "flat": np.array([2, 256], np.int64),
    }
    nodes = [
        node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["r"]),
        node("Reshape", ["r", "four"], ["b"]),
        node("Reshape", ["b", "flat"], ["c"]),
        node("MatMul", ["c", "v"], ["y"]),
    ]
    model = onnx_models.model(nodes, {"x": (np.float32, [2, 3, 4, 4])}, {"y": (np.float32, 2)}, constants)
    network = onnx_models.read(model, tmp_path)
    structure = analyse(network)
    assert [len(family) for family in structure.families] == [16]
    keep = half(structure)
    small = remove(network, structure, keep)
    assert small.parameters == (8 * 27) + (8 * 16 * 5)
    agree(small.module, masked(network, structure, keep), (torch.randn(2, 3, 4, 4),), 1e-4)
    assert numpy_helper.to_array(model.graph.initializer[2]).tolist() == [2, 16, 16]


class Grouped(nn.Module):
    """A ResNeXt block, a transposed grouped convolution, a depthwise one that makes two channels of each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.down, self.grouped = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.norm, self.up = nn.BatchNorm2d(8), nn.Conv2d(8, 16, 1)
        self.wide = nn.Conv2d(16, 32, 3, padding=1, groups=16)
        self.back = nn.ConvTranspose2d(32, 12, 2, 2, groups=2)
        self.deep = nn.ConvTranspose2d(12, 12, 2, 2, groups=12)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(x + self.up(F.relu(self.norm(self.grouped(self.down(x))))))
        return self.head(self.deep(F.relu(self.back(self.wide(x)))).mean((2, 3)))


def test_groups() -> None:
    torch.manual_seed(0)
    network = network_of(Grouped().eval(), (torch.randn(2, 3, 8, 8),))
    structure = analyse(network)
    keep = half(structure)
    small = remove(network, structure, keep)
    sizes = {path: getattr(small.module, path) for path in ("grouped", "wide", "back", "deep")}
    assert (sizes["grouped"].in_channels, sizes["grouped"].groups) == (4, 4)
    assert (sizes["wide"].in_channels, sizes["wide"].out_channels, sizes["wide"].groups) == (8, 16, 8)
    assert (sizes["back"].in_channels, sizes["back"].out_channels, sizes["back"].groups) == (16, 6, 2)
    assert (sizes["deep"].in_channels, sizes["deep"].out_channels, sizes["deep"].groups) == (6, 6, 6)
    agree(small.module, masked(network, structure, keep), (torch.randn(3, 3, 8, 8),))


class Heads(nn.Module):
    """Attention of four heads, with scores written out."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(12, 96), nn.Linear(32, 12)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(x.shape[0], x.shape[1], 3, 4, 8).permute(2, 0, 3, 1, 4)
        scores = torch.softmax(q @ k.transpose(-2, -1) / 8**0.5, -1)
        return self.out((scores @ v).transpose(1, 2).reshape(x.shape[0], x.shape[1], 32))


def test_heads_go_as_wholes() -> None:
    torch.manual_seed(0)
    network = network_of(Heads().eval(), (torch.randn(2, 5, 12),))
    structure = analyse(network)
    (family,) = structure.families
    assert (len(family), family.width) == (4, 96)
    rows = next(place for place in structure.places if place.key == "qkv.weight" and place.role == "out")
    expected = [part * 32 + 8 + index for part in range(3) for index in range(8)]
    assert rows.indices(1).tolist() == expected
    keep = np.array([True, False, False, True])
    small = remove(network, structure, keep)
    assert small.module.qkv.out_features == 48
    agree(small.module, masked(network, structure, keep), (torch.randn(3, 5, 12),))


def test_the_scale_of_attention_stays() -> None:
    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(6, 8) for _ in range(3))
            self.out = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (layer(x).unsqueeze(1) for layer in (self.q, self.k, self.v))
            return self.out(F.scaled_dot_product_attention(q, k, v).squeeze(1))

    torch.manual_seed(0)
    network = network_of(Single().eval(), (torch.randn(2, 5, 6),))
    structure = analyse(network)
    assert [set(family.layers) for family in structure.families] == [{"q", "k"}, {"v"}]
    keep = half(structure)
    small = remove(network, structure, keep)
    assert small.module.q.out_features == 4
    agree(small.module, masked(network, structure, keep), (torch.randn(3, 5, 6),))


def test_a_choice_has_to_leave_something() -> None:
    network = built("plain")
    structure = analyse(network)
    keep = structure.everything()
    keep[structure.families[0].units] = False
    with pytest.raises(ValueError, match="one or more of each family"):
        remove(network, structure, keep)
    with pytest.raises(ValueError, match="one entry for each unit"):
        remove(network, structure, keep[1:])


class Rolled(nn.Module):
    """Channels that a rotation mixes: what is left of them cannot be rotated in the same way."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
        self.c = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(F.relu(self.b(F.relu(torch.roll(self.a(x), 3, 1)))))


def test_what_would_come_out_in_another_order_stays() -> None:
    torch.manual_seed(0)
    network = network_of(Rolled().eval(), (torch.randn(2, 3, 4, 4),))
    structure = analyse(network)
    assert [family.layers for family in structure.families] == [("b",)]
    assert "another order" in structure.left["a"]


class Drawn(nn.Module):
    """A few convolutions that are put together as `plan` says."""

    def __init__(self, plan: list[tuple[str, int]]) -> None:
        super().__init__()
        self.plan, self.layers, widths = plan, nn.ModuleList(), [6]
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        for kind, back in plan:
            width = widths[-1]
            other = widths[max(len(widths) - 1 - back, 0)]
            if kind == "add":
                layer: nn.Module = nn.Conv2d(width, other, 1)
            elif kind == "grouped":
                layer = nn.Conv2d(width, width, 3, padding=1, groups=2)
            elif kind == "depthwise":
                layer = nn.Conv2d(width, width, 3, padding=1, groups=width)
            elif kind == "gate":
                layer = nn.Conv2d(other, width, 1)
            else:
                layer = nn.Sequential(nn.Conv2d(width, 4, 3, padding=1), nn.BatchNorm2d(4))
            self.layers.append(layer)
            widths.append({"add": other, "cat": 4 + other, "shuffle": 4, "plain": 4}.get(kind, width))
        self.head = nn.Linear(widths[-1], 3)

    def forward(self, x: Tensor) -> Tensor:
        values = [F.relu(self.stem(x))]
        for (kind, back), layer in zip(self.plan, self.layers, strict=True):
            other = values[max(len(values) - 1 - back, 0)]
            if kind == "gate":
                y = values[-1] * torch.sigmoid(layer(other.mean((2, 3), keepdim=True)))
            else:
                y = layer(values[-1])
            if kind == "add":
                y = y + other
            elif kind == "cat":
                y = torch.cat([y, other], 1)
            elif kind == "shuffle":
                y = y.view(y.shape[0], 2, 2, *y.shape[2:]).transpose(1, 2).flatten(1, 2)
            values.append(F.silu(y))
        return self.head(values[-1].mean((2, 3)))


KINDS = st.sampled_from(["add", "cat", "grouped", "depthwise", "shuffle", "gate", "plain"])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(KINDS, st.integers(0, 3)), min_size=1, max_size=5), st.integers(0, 100))
def test_any_choice_answers_as_zeros(plan: list[tuple[str, int]], seed: int) -> None:
    torch.manual_seed(seed)
    network = network_of(Drawn(plan).eval(), (torch.randn(2, 3, 5, 5),))
    structure = analyse(network)
    random = np.random.default_rng(seed)
    keep = random.random(structure.units) < random.random()
    for family in structure.families:
        keep[random.integers(family.start, family.stop)] = True
    small = remove(network, structure, keep)
    assert structure.macs(keep) == sum(count_macs(small).values())
    assert structure.parameters(keep) == small.parameters
    agree(small.module, masked(network, structure, keep), (torch.randn(2, 3, 5, 5),), 1e-4)
