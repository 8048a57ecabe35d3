"""What TensorRT is given: checked on the ONNX, without a GPU."""

import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto

from app.recipes.methods import QuantizeStatic
from tests.support.quantizable import build, compress, samples, sqnr_db
from worker.engine.errors import InvalidModel
from worker.engine.quantized.fake import fake_quantized
from worker.engine.quantized.observe import tensors
from worker.engine.targets.floats import Floats
from worker.engine.targets.onnx_qdq import quantized_onnx
from worker.engine.targets.tensorrt import float_biases, profile_shapes

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def test_biases_are_float_and_activations_symmetric(tmp_path: Path) -> None:
    network = build("residual")
    form = compress(network, QuantizeStatic(), tmp_path, ("tensorrt",)).quantized["tensorrt"]
    assert {(grid.zero_point, grid.dtype) for grid in form.activations.values()} == {(0, "int8")}
    exported = Floats(network, tmp_path).onnx
    assert exported.onnx is not None
    after = float_biases(quantized_onnx(exported.onnx, exported.values, form))
    inputs = dict(samples(network, 4, seed=2).inputs)
    with torch.no_grad():
        expected = fake_quantized(form)(*tensors(inputs, network, "cpu"))[0].numpy()
    assert TensorProto.INT32 not in {tensor.data_type for tensor in after.graph.initializer}
    options = onnxruntime.SessionOptions()  # operator by operator: no processor's kernels in between
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    got = onnxruntime.InferenceSession(after.SerializeToString(), options).run(None, inputs)[0]
    assert sqnr_db(expected, np.asarray(got)) > 30


def test_the_batch_of_an_engine_is_a_range() -> None:
    shapes = profile_shapes(build("two_inputs"))
    assert list(shapes.values()) == [((1, 6), (1, 6), (64, 6)), ((1, 4), (1, 4), (64, 4))]


def test_an_archive_with_other_files_is_refused(tmp_path: Path) -> None:
    from worker.engine.runtimes.tensorrt import engine_of

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../model.engine", "x")
    with pytest.raises(InvalidModel):
        engine_of(tmp_path / "a.zip")
