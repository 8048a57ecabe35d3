"""The torch session runs whatever the writer writes: names of ONNX files, dictionaries of results."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from worker.engine.formats.lift import network_of
from worker.engine.formats.pt2_writer import write_pt2
from worker.engine.runtimes.torch import open_session


class Two(nn.Module):
    def forward(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return left - right, left * right


@pytest.mark.parametrize("outputs", [("difference", "a/product.1"), ("output_0", "output_1")])
def test_inputs_go_by_position_and_results_come_in_order(tmp_path, outputs):
    network = network_of(Two(), (torch.zeros(2, 3), torch.zeros(2, 3)))
    inputs = tuple(replace(spec, name=f"{spec.name}.1") for spec in network.inputs)
    named = tuple(replace(spec, name=name) for spec, name in zip(network.outputs, outputs, strict=True))
    write_pt2(replace(network, inputs=inputs, outputs=named), tmp_path / "m.pt2")
    left, right = np.full((4, 3), 5.0, np.float32), np.full((4, 3), 2.0, np.float32)
    difference, product = open_session(tmp_path / "m.pt2", 1).run({"left.1": left, "right.1": right})
    np.testing.assert_array_equal(difference, left - right)
    np.testing.assert_array_equal(product, left * right)


def test_a_single_result_of_any_name(tmp_path):
    network = network_of(nn.ReLU(), (torch.zeros(2, 3),))
    write_pt2(replace(network, outputs=(replace(network.outputs[0], name="scores"),)), tmp_path / "m.pt2")
    (result,) = open_session(tmp_path / "m.pt2", 1).run({"input": np.ones((4, 3), np.float32)})
    np.testing.assert_array_equal(result, np.ones((4, 3), np.float32))
