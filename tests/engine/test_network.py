import pytest
import torch
from torch import nn

from worker.engine.formats.lift import network_of
from worker.engine.network import TensorSpec


def test_json_of_a_spec():
    spec = TensorSpec("image", "float32", ("batch", 3, 8), (2, 3, 8))
    assert spec.to_json() == {"name": "image", "dtype": "float32", "shape": ["batch", 3, 8]}
    assert spec.batched


@pytest.mark.parametrize(("shape", "batched"), [((1, 3), False), ((), False), (("batch",), True)])
def test_batched_means_a_symbolic_first_dimension(shape, batched):
    assert TensorSpec("x", "float32", shape).batched is batched


def test_examples_fit_the_spec():
    spec = TensorSpec("tokens", "int64", ("batch", "s1", 4), (2, 7, 4))
    example = spec.example(batch=3)
    assert example.shape == (3, 7, 4)
    assert example.dtype == torch.int64
    assert TensorSpec("x", "float32", (1, 3), (1, 3)).example(batch=5).shape == (1, 3)
    assert TensorSpec("x", "float32", ("batch", "s1")).example().shape == (2, 2)


def test_sizes_do_not_make_specs_different():
    assert TensorSpec("x", "float32", ("batch",), (2,)) == TensorSpec("x", "float32", ("batch",), (9,))


def test_parameters_are_counted_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3, bias=False)
            self.b = nn.Linear(3, 3, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x))

    assert network_of(Tied(), (torch.randn(2, 3),)).parameters == 9


def test_moving_takes_new_tensors_along():
    class Maker(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(x) + torch.arange(3, device=x.device)

    network = network_of(Maker(), (torch.randn(2, 3),)).to("meta")
    assert network.module(torch.empty(4, 3, device="meta"))[0].device.type == "meta"
