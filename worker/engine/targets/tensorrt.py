"""TensorRT: an engine that is built from the QDQ ONNX on the GPU that is to run it.

TensorRT takes symmetric int8 activations and int8 weights with a scale per channel; biases stay in float. Written from
the documentation of TensorRT 10; not run on hardware yet.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, numpy_helper

from worker.engine.errors import RuntimeFailure
from worker.engine.network import Network
from worker.engine.quantized.form import Quantization
from worker.engine.runtimes.base import missing
from worker.engine.runtimes.tensorrt import ENGINE, ONNX, open_session
from worker.engine.targets.base import Target
from worker.engine.targets.float_export import FloatExport
from worker.engine.targets.floats import Floats
from worker.engine.targets.onnx_graph import sweep
from worker.engine.targets.onnx_qdq import quantized_onnx

#: The largest batch that an engine takes, where the model's is symbolic.
MOST_SAMPLES: Final = 64


def available() -> str | None:
    """None, or why engines cannot be built here."""
    if find_spec("tensorrt") is None:
        return missing("tensorrt", "tensorrt")
    return None if any(Path("/dev").glob("nvidia[0-9]*")) else "TensorRT needs an NVIDIA GPU; none is here"


def export_float(floats: Floats) -> FloatExport:
    """Write ``float.zip``, by way of ONNX. Raises `RuntimeFailure` (``export_failed``)."""
    exported = floats.onnx
    path = floats.folder / "float-tensorrt.zip"
    return replace(exported, path=_write(onnx.load(str(exported.path)), exported.network, path))


def export_quantized(quantization: Quantization, exported: FloatExport, path: Path) -> Path:
    """Write the quantized form of `exported`. Raises `RuntimeFailure` (``export_failed``)."""
    if exported.onnx is None:
        raise TypeError("the float export has no ONNX graph")
    model = float_biases(quantized_onnx(exported.onnx, exported.values, quantization))
    return _write(model, quantization.network, path)


def float_biases(model: ModelProto) -> ModelProto:
    """`model`, with float constants in place of dequantized int32 ones, which TensorRT does not read."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "DequantizeLinear"]:
        tensor = constants.get(node.input[0])
        if tensor is None or tensor.data_type != TensorProto.INT32:
            continue
        values = numpy_helper.to_array(tensor).astype(np.float64) * numpy_helper.to_array(constants[node.input[1]])
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), node.output[0]))
        graph.node.remove(node)
    sweep(graph)
    return model


def profile_shapes(network: Network) -> Mapping[str, tuple[tuple[int, ...], ...]]:
    """Input -> its smallest, usual and largest shape, of the inputs with a symbolic batch.

    Raises:
        RuntimeFailure: ``export_failed`` where another size is symbolic.
    """
    shapes = {}
    for spec in network.inputs:
        fixed = [dim for dim in spec.shape[spec.batched :] if isinstance(dim, int)]
        if len(fixed) != len(spec.shape) - spec.batched:
            detail = f"tensorrt: sizes must be fixed, other than the batch's; {spec.name} has others"
            raise RuntimeFailure("export_failed", detail)
        if spec.batched:
            shapes[spec.name] = tuple((count, *fixed) for count in (1, 1, MOST_SAMPLES))
    return shapes


def _write(model: ModelProto, network: Network, path: Path) -> Path:
    source = model.SerializeToString()
    engine = _engine(source, profile_shapes(network))
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(ENGINE, engine)
        archive.writestr(ONNX, source)
    return path


def _engine(source: bytes, shapes: Mapping[str, tuple[tuple[int, ...], ...]]) -> bytes:
    """Build the engine; types follow the ONNX file (a strongly typed network)."""
    import tensorrt  # noqa: PLC0415 (an optional runtime)

    builder = tensorrt.Builder(tensorrt.Logger(tensorrt.Logger.ERROR))
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, tensorrt.Logger(tensorrt.Logger.ERROR))
    if not parser.parse(source):
        reasons = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
        raise RuntimeFailure("export_failed", f"TensorRT cannot read the model: {reasons[:500]}")
    config = builder.create_builder_config()
    if shapes:
        profile = builder.create_optimization_profile()
        for name, (least, usual, most) in shapes.items():
            profile.set_shape(name, least, usual, most)
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeFailure("export_failed", "TensorRT found no way to run the model")
    return bytes(plan)


TENSORRT = Target(
    name="tensorrt",
    suffix=".zip",
    available=available,
    export_float=export_float,
    export_quantized=export_quantized,
    session=open_session,
)
