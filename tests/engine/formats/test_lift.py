import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.export import Dim, export

from tests.support.networks import ZOO, ResNet18, flat, make
from worker.engine.errors import Unsupported
from worker.engine.formats import aten
from worker.engine.formats.fold import fold_batch_norm
from worker.engine.formats.lift import lift, network_of, quiet_export
from worker.engine.formats.program import from_exported


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(f"lift-{name}")) for name in sorted(ZOO)]
)
def lifted(request):
    module = make(request.param)
    return request.param, module, network_of(module, ZOO[request.param].inputs(2))


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_agrees_with_the_module(lifted, batch):
    name, module, network = lifted
    inputs = ZOO[name].inputs(batch)
    for expected, got in zip(flat(module(*inputs)), network.module(*inputs), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_keeps_the_names_of_layers_and_parameters(lifted):
    _, module, network = lifted
    layers = {n for n, m in module.named_modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d, nn.RNNBase))}
    layers |= {n for n, m in module.named_modules() if type(m) is nn.Linear and "attention" not in n}
    called = {node.target for node in network.module.graph.nodes if node.op == "call_module"}
    assert layers <= called
    assert network.parameters == sum(p.numel() for p in module.parameters())


def test_exports_again_with_a_dynamic_batch(lifted):
    name, module, network = lifted
    shapes = tuple({0: Dim.DYNAMIC} for _ in network.inputs)
    again = quiet_export(network.module, network.examples(), shapes).module()
    inputs = ZOO[name].inputs(5)
    for expected, got in zip(flat(module(*inputs)), flat(again(*inputs)), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_trains_like_the_module(lifted):
    name, module, network = lifted
    inputs = ZOO[name].inputs(4)
    losses = []
    for trained in (copy.deepcopy(module), copy.deepcopy(network.module)):
        trained.train()
        for part in trained.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
        if name == "transformer":  # attention draws its own dropout mask in training mode
            trained.eval()
        optimizer = torch.optim.SGD(trained.parameters(), 0.01)
        for _ in range(3):
            optimizer.zero_grad()
            loss = sum(out.square().mean() for out in flat(trained(*inputs)))
            loss.backward()
            optimizer.step()
        losses.append(loss.detach())
    torch.testing.assert_close(losses[0], losses[1], atol=1e-4, rtol=1e-4)


def test_folding_batch_norm_changes_no_answer_and_not_the_original(lifted):
    name, module, network = lifted
    before = {key: value.clone() for key, value in network.module.state_dict().items()}
    folded = fold_batch_norm(network)
    inputs = ZOO[name].inputs(3)
    for expected, got in zip(flat(module(*inputs)), folded.module(*inputs), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    assert not any(isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)) for m in folded.module.modules())
    for key, value in network.module.state_dict().items():
        assert torch.equal(value, before[key])


def test_folding_leaves_a_norm_whose_layer_is_used_elsewhere():
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x):
            y = self.conv(x)
            return self.norm(y) + y

    network = fold_batch_norm(network_of(Branch().eval(), (torch.randn(2, 3, 4, 4),)))
    assert isinstance(network.module.norm, nn.BatchNorm2d)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_folding_into_a_transposed_convolution(groups, bias):
    module = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, 2, groups=groups, bias=bias), nn.BatchNorm2d(6)).eval()
    module[1].running_mean.normal_()
    module[1].running_var.uniform_(0.5, 2)
    network = network_of(module, (torch.randn(2, 4, 5, 5),))
    x = torch.randn(3, 4, 5, 5)
    torch.testing.assert_close(fold_batch_norm(network).module(x)[0], module(x), atol=1e-5, rtol=1e-5)


def test_inputs_and_outputs_are_named_as_the_user_knows_them():
    class Two(nn.Module):
        def forward(self, image, input):
            return {"sum": image + input, "parts": (image, input.mean())}

    network = network_of(Two(), (torch.randn(2, 3), torch.randn(2, 3)))
    assert [spec.to_json() for spec in network.inputs] == [
        {"name": "image", "dtype": "float32", "shape": ["batch", 3]},
        {"name": "input", "dtype": "float32", "shape": ["batch", 3]},
    ]
    assert [spec.name for spec in network.outputs] == ["sum", "parts_0", "parts_1"]
    assert network.batched


def test_a_fixed_batch_stays_a_number():
    network = network_of(nn.Linear(3, 2), (torch.randn(1, 3),), dynamic_batch=False)
    assert network.inputs[0].shape == (1, 3)
    assert not network.batched


def test_shared_weights_stay_shared():
    network = network_of(make("recurrent"), ZOO["recurrent"].inputs(2))
    assert network.module.decoder.weight is network.module.embedding.weight


def test_a_layer_that_is_called_twice_is_one_module():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(self.layer(x))

    network = network_of(Twice(), (torch.randn(2, 3),))
    assert [n.target for n in network.module.graph.nodes if n.op == "call_module"] == ["layer", "layer"]


def test_one_weight_with_two_strides_is_two_modules_with_one_parameter():
    class Strided(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(2, 3, 3, 3))

        def forward(self, x):
            return F.conv2d(x, self.weight).mean() + F.conv2d(x, self.weight, stride=2).mean()

    module = Strided()
    network = network_of(module, (torch.randn(2, 3, 9, 9),))
    x = torch.randn(4, 3, 9, 9)
    torch.testing.assert_close(network.module(x)[0], module(x))
    assert network.parameters == module.weight.numel()


def test_in_place_changes_behind_a_view_are_kept():
    class Sneaky(nn.Module):
        def forward(self, x):
            y = F.relu(x + 1, inplace=True)
            y[:, 0] = 7.0
            z = y.view(-1, 3)
            z.mul_(2)
            return y

    network = network_of(Sneaky(), (torch.randn(2, 3),))
    x = torch.randn(4, 3)
    torch.testing.assert_close(network.module(x)[0], Sneaky()(x))


def test_layers_that_change_their_input_in_place():
    """Whose operators name their arguments otherwise: `dropout_` calls `self` what is `input` to `dropout`."""
    module = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5, inplace=True), nn.Linear(4, 2)).eval()
    network = network_of(module, (torch.randn(2, 3),))
    x = torch.randn(5, 3)
    torch.testing.assert_close(network.module(x)[0], module(x))
    assert any(isinstance(part, nn.Dropout) for part in network.module.modules())


def test_operators_of_python_are_bitwise_calls():
    class Masks(nn.Module):
        def forward(self, a, b):
            c = (a & 12) | (a ^ b)
            d = b.clone()
            d &= a
            return c, d

    a, b = torch.randint(0, 64, (2, 5, 4))
    network = network_of(Masks(), (a[:2], b[:2]))
    for expected, got in zip(Masks()(a, b), network.module(a, b), strict=True):
        assert torch.equal(got, expected)
    called = {aten.name_of(node.target) for node in network.module.graph.nodes if node.op == "call_function"}
    assert called == {"aten.bitwise_and", "aten.bitwise_or", "aten.bitwise_xor", "aten.clone"}


def test_a_part_without_gradients_is_copied_in():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            with torch.no_grad():
                y = self.backbone(x).relu()
            return self.head(y)

    module = Frozen()
    network = network_of(module, (torch.randn(2, 3),))
    x = torch.randn(3, 3)
    torch.testing.assert_close(network.module(x)[0], module(x))
    assert isinstance(network.module.backbone, nn.Linear)


def test_a_model_exported_in_training_mode_is_read_in_evaluation_mode():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    network = network_of(module, (torch.randn(2, 3, 8, 8),))
    x = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(network.module(x)[0], copy.deepcopy(module).eval()(x))
    assert any("training mode" in note for note in network.notes)


def test_a_model_with_memory_is_refused():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x):
            self.seen.add_(x.sum())
            return x + self.seen

    with pytest.raises(Unsupported) as error:
        network_of(Counter(), (torch.randn(2, 3),))
    assert error.value.code == "stateful_model"
    assert "seen" in error.value.detail


def test_unsupported_operators_are_all_named():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.linalg.svdvals(x), torch.linalg.det(x)

    with pytest.raises(Unsupported) as error:
        network_of(Odd(), (torch.randn(2, 3, 3),))
    assert error.value.code == "unsupported_operator"
    assert "aten.linalg_svdvals" in error.value.detail
    assert "det" in error.value.detail


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch's own
def test_decomposed_programs_lift_too():
    module = make("resnet18")
    exported = export(module, (torch.randn(2, 3, 32, 32),), dynamic_shapes=({0: Dim.DYNAMIC},)).run_decompositions()
    network = lift(from_exported(exported), "pt2")
    x = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(network.module(x)[0], module(x), atol=1e-5, rtol=1e-5)
    kinds = [type(m) for m in network.module.modules()]
    assert kinds.count(nn.Conv2d) == 20
    assert kinds.count(nn.BatchNorm2d) == 20
    assert kinds.count(nn.Linear) == 1


def test_the_published_resnet18_has_its_parameters():
    assert sum(p.numel() for p in ResNet18(1000).parameters()) == 11_689_512
