"""Which layers belong together, and graphs that return what they answer."""

import pytest
import torch

from tests.support.channels import built
from tests.support.quantizable import build
from worker.engine.measure.macs import random_inputs
from worker.engine.structure.smaller import smaller
from worker.engine.training.features import Tap, pairs, projections, tapped, taps


@pytest.mark.parametrize("name", ["resnet18", "vit", "densenet", "unet"])
def test_a_narrower_copy_finds_every_layer_of_its_teacher(name: str) -> None:
    teacher = built(name)
    student, _ = smaller(teacher, width=0.5, depth=1.0)
    found = pairs(taps(teacher), taps(student))
    assert len(found) > 1
    assert [pair.teacher.path for pair in found] == [pair.student.path for pair in found]
    assert all(pair.student.channels <= pair.teacher.channels for pair in found)
    assert [pair.teacher.depth for pair in found] == sorted(pair.teacher.depth for pair in found)
    maps = projections(found, seed=0)
    more = tapped(student.module, [pair.student.node for pair in found], maps)
    wanted = tapped(teacher.module, [pair.teacher.node for pair in found])
    inputs, count = random_inputs(teacher, 3), len(teacher.outputs)
    results, targets = more(*inputs), wanted(*inputs)
    assert [value.shape for value in results] == [value.shape for value in targets]
    for one, other in zip(results[:count], student.module(*inputs), strict=True):
        torch.testing.assert_close(one, other)
    for pair, value in zip(found, targets[count:], strict=True):
        assert tuple(value.shape[1:]) == pair.teacher.shape


def test_layers_are_shared_with_the_network_and_maps_are_not() -> None:
    teacher = build("residual")
    (first, *_) = found = pairs(taps(teacher), taps(teacher), ["stem"])
    assert first.teacher.path == first.student.path == "stem"
    maps = [torch.nn.Conv2d(16, 16, 1)]
    more = tapped(teacher.module, [pair.student.node for pair in found], maps)
    assert more.get_submodule("stem") is teacher.module.get_submodule("stem")
    assert not any(name.startswith("projection") for name, _ in teacher.module.named_modules())


def test_layers_with_channels_elsewhere_are_not_compared() -> None:
    last = Tap("a", "stage.pointwise", (8, 8, 16), 2, 0.5, False)
    first = Tap("b", "layer.conv", (16, 8, 8), 0, 0.5, False)
    assert last.places == first.places
    assert pairs([last], [first]) == []
    assert len(pairs([first], [first])) == 1
