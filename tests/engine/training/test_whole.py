"""A float network in training, and afterwards."""

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
