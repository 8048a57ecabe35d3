"""A float network in training, and afterwards."""

import subprocess
import sys

import pytest
import torch

from app.recipes.methods import LayerFilter
from tests.support.channels import built
from worker.engine.measure.macs import random_inputs
from worker.engine.training.whole import graduated, whole


def test_it_computes_the_same_in_any_memory_order() -> None:
    for name in ("vgg", "vit", "shufflenet"):
        network = built(name)
        (image,) = random_inputs(network, 3)
        expected = network.module(image)[0]
        pupil = whole(network, LayerFilter())
        result = pupil.module.eval()(image.contiguous(memory_format=torch.channels_last))[0]
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
        done = graduated(pupil)
        assert all(parameter.is_contiguous() for parameter in done.module.parameters())
        torch.testing.assert_close(done.module(image)[0], expected, rtol=1e-4, atol=1e-5)
        assert not done.module.training


@pytest.mark.parametrize("samples", [32, 63])
def test_shortcuts_with_a_stride_get_the_right_gradient(samples: int) -> None:
    """In a process of its own: what it guards against crashes, on some processors and for some numbers of samples."""
    done = subprocess.run([sys.executable, "-c", _STRIDED, str(samples)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-4


_STRIDED = """
import sys, torch
from torch import nn
from app.recipes.methods import LayerFilter
from worker.engine.formats.lift import network_of
from worker.engine.training.whole import graduated, whole

samples = int(sys.argv[1])
torch.manual_seed(0)
module = nn.Sequential(nn.Conv2d(4, 8, 1, 2), nn.ReLU(), nn.Flatten()).eval()
pupil = whole(network_of(module, (torch.zeros(2, 4, 16, 16),)), LayerFilter())
for _ in range(20):
    images = torch.randn(samples, 4, 16, 16)
    pupil.module.zero_grad()
    pupil.module(images.contiguous(memory_format=torch.channels_last))[0].square().sum().backward()
module.double()(images.double()).square().sum().backward()
expected = module[0].weight.grad
found = next(p for p in pupil.module.parameters() if p.dim() == 4).grad
assert {type(part) for part in graduated(pupil).module.modules()} >= {nn.Conv2d}
print(float((found - expected).abs().max() / expected.abs().max()))
"""
