"""Small ONNX models, made by hand, and how ONNX Runtime answers them."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper

from worker.engine import formats
from worker.engine.network import Network


def model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[Any, list[Any]]],
    outputs: dict[str, tuple[Any, int]],
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 21,
    domains: dict[str, int] | None = None,
) -> onnx.ModelProto:
    """A model whose results have sizes without a name.

    Args:
        nodes: of the graph.
        inputs: name -> numpy type and shape, with names for symbolic sizes.
        outputs: name -> numpy type and number of dimensions.
        constants: initializers by name.
        opset: of the standard operators.
        domains: further domains and their versions.
    """
    kind = helper.np_dtype_to_tensor_dtype
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, kind(np.dtype(t)), shape) for n, (t, shape) in inputs.items()],
        [
            helper.make_tensor_value_info(n, kind(np.dtype(t)), [f"{n}{axis}" for axis in range(rank)])
            for n, (t, rank) in outputs.items()
        ],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, v) for d, v in (domains or {}).items())]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def read(content: onnx.ModelProto, folder: Path) -> Network:
    """The network of a model."""
    path = folder / "model.onnx"
    path.write_bytes(content.SerializeToString())
    return formats.read(path)


def runtime(content: onnx.ModelProto | Path, *arrays: np.ndarray) -> list[np.ndarray]:
    """What ONNX Runtime answers."""
    session = onnxruntime.InferenceSession(
        str(content) if isinstance(content, Path) else content.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_inputs()]
    return session.run(None, dict(zip(names, arrays, strict=True)))


def answers(network: Network, *arrays: np.ndarray) -> list[np.ndarray]:
    """What the network answers."""
    with torch.no_grad():
        return [value.numpy() for value in network.module(*(torch.from_numpy(array) for array in arrays))]


def agree(content: onnx.ModelProto, folder: Path, *arrays: np.ndarray, atol: float = 1e-5) -> Network:
    """Read a model and compare all its results with those of ONNX Runtime."""
    network = read(content, folder)
    for got, want in zip(answers(network, *arrays), runtime(content, *arrays), strict=True):
        assert got.dtype == want.dtype
        assert got.shape == want.shape
        np.testing.assert_allclose(got.astype(np.float64), want.astype(np.float64), atol=atol, rtol=1e-4)
    return network
