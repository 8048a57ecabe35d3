"""Layers that train on centroids: gradients, and weights in front of a batch norm."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from worker.engine.quantized.codebook import StraightLayer, TunedLayer, by_numbers
from worker.engine.quantized.form import looked_up
from worker.engine.quantized.kmeans import vector_codebook
from worker.engine.quantized.signs import binary, ternary


@pytest.mark.parametrize(("bits", "find"), [(2, ternary), (1, binary)])
def test_the_folded_weight_is_what_is_projected(bits: int, find: object) -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)
    norm.running_var = torch.tensor([0.1, 1.0, 3.0, 0.5, 2.0])
    norm.running_mean = torch.randn(5)
    norm.weight.data = torch.tensor([1.0, -0.7, 0.3, 1e-3, 2.0])
    project = partial(by_numbers, whole=False, bits=bits, find=find)
    layer = StraightLayer(conv, [norm], project).eval()  # type: ignore[arg-type]
    factor = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).detach()
    weight = conv.weight.detach() * factor.reshape(-1, 1, 1, 1)
    bias = ((conv.bias - norm.running_mean) * factor + norm.bias).detach()
    stored = layer.stored(weight, bias, 0.0)
    assert stored.centroids is not None
    assert len(stored.centroids) == 5
    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(
        nn.functional.conv2d(x, stored.dequantized(), bias), layer(x).detach(), atol=1e-5, rtol=1e-4
    )


def test_the_gradient_of_a_projection_is_that_of_its_weight() -> None:
    layer = StraightLayer(nn.Linear(6, 4), [], partial(by_numbers, whole=False, bits=1, find=binary))
    x = torch.randn(3, 6)
    layer(x).square().sum().backward()
    weight = layer.weight().detach().requires_grad_()
    nn.functional.linear(x, weight, layer.layer.bias).square().sum().backward()
    torch.testing.assert_close(layer.layer.weight.grad, weight.grad)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("vector", [1, 4])
def test_a_centroid_gets_the_sum_of_the_gradients_of_its_weights(whole: bool, vector: int) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(40, 6)

    def find(books: Tensor) -> tuple[Tensor, Tensor]:
        found = [vector_codebook(book.reshape(-1, vector), 2, 0) for book in books]
        return torch.stack([centroids for centroids, _ in found]), torch.stack([codes for _, codes in found])

    start = by_numbers(linear.weight.detach(), linear.bias.detach(), whole=whole, bits=2, find=find)
    layer = TunedLayer(linear, [], start)
    torch.testing.assert_close(layer.weight().detach(), start.dequantized())
    x = torch.randn(5, 40)
    layer(x).square().sum().backward()
    centroids = start.centroids.clone().requires_grad_()
    nn.functional.linear(x, looked_up(start.values, centroids).reshape(6, 40), linear.bias).square().sum().backward()
    torch.testing.assert_close(layer.centroids.grad, centroids.grad * layer.spread, rtol=1e-4, atol=1e-5)
    assert {name for name, p in layer.named_parameters() if p.requires_grad} == {"centroids", "layer.bias"}
    assert not {"codes", "spread"} & set(layer.state_dict())
