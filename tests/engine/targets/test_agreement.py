"""Every artifact computes what fake quantization predicts, and little else than the float network."""

import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from app.recipes import TARGETS as GRIDS
from app.recipes import Step
from app.recipes.methods import QuantizeDynamic, QuantizeStatic
from tests.support.exports import Exports
from tests.support.quantizable import NETWORKS, build, compress, samples, sqnr_db
from worker.engine import formats
from worker.engine.errors import InvalidModel
from worker.engine.formats.lift import network_of
from worker.engine.quantized.fake import fake_quantized
from worker.engine.quantized.observe import tensors
from worker.engine.targets import TARGETS
from worker.engine.targets.floats import Floats

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

#: Targets that run without a GPU; the mobile ones take ten seconds for each file, and have tests of their own beside.
CPU = sorted(set(TARGETS) - {"tensorrt"})
MOBILE = {"executorch", "litert"}
STEPS = {"static": QuantizeStatic(), "dynamic": QuantizeDynamic()}
#: dB. Kernels round half a step differently now and then; a wrong scale anywhere gives less than 20.
AGREEMENT = 30.0
FIDELITY = {"static": 22.0, "dynamic": 28.0}


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        *((name, tuple(target for target in CPU if target not in MOBILE)) for name in sorted(NETWORKS)),
        *(("residual", (target,)) for target in sorted(MOBILE)),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_artifacts_agree(name: str, targets: tuple[str, ...], tmp_path: Path) -> None:
    network = build(name)
    held_out = samples(network, 16, seed=2)
    inputs = dict(held_out.inputs)
    with torch.no_grad():
        floats = [value.numpy() for value in network.module(*tensors(inputs, network, "cpu"))]
    exports = Exports(network, tmp_path)  # what targets share is exported once
    for target in targets:
        exported = exports.of(target)
        baseline = TARGETS[target].session(exported.path, 1, True).run(inputs)
        for expected, got in zip(floats, baseline, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4, err_msg=target)
        for label, step in STEPS.items():
            check_step(label, step, target, network, exported, inputs, floats, tmp_path)


def check_step(label: str, step: Step, target: str, network, exported, inputs, floats, folder: Path) -> None:
    quantization = compress(network, step, folder, (target,)).quantized[target]
    path = TARGETS[target].export_quantized(quantization, exported, folder / f"{label}{TARGETS[target].suffix}")
    outputs = TARGETS[target].session(path, 1, True).run(inputs)
    with torch.no_grad():
        predicted = [value.numpy() for value in fake_quantized(quantization)(*tensors(inputs, network, "cpu"))]
    assert len(outputs) == len(floats)
    for expected, fake, got in zip(floats, predicted, outputs, strict=True):
        assert sqnr_db(fake, got) > AGREEMENT, (target, label)
        assert sqnr_db(expected, got) > FIDELITY[label], (target, label)


@pytest.mark.parametrize("name", ["residual", "branches", "encoder", "two_inputs"])
def test_quantized_onnx_comes_from_the_users_own_file(name: str, tmp_path: Path) -> None:
    original = build(name)
    file = TARGETS["onnxruntime"].export_float(Floats(original, tmp_path / "upload")).path
    network = formats.read(file, "onnx")
    exported = TARGETS["onnxruntime"].export_float(Floats(network, tmp_path))
    uploaded, written = onnx.load(str(file)), onnx.load(str(exported.path))
    assert [node.op_type for node in written.graph.node] == [node.op_type for node in uploaded.graph.node]
    inputs = dict(samples(network, 16, seed=2).inputs)
    with torch.no_grad():
        floats = [value.numpy() for value in network.module(*tensors(inputs, network, "cpu"))]
    for label, step in STEPS.items():
        check_step(label, step, "onnxruntime", network, exported, inputs, floats, tmp_path)


@pytest.mark.parametrize("pads", [[1, 1, 1, 1], [0, 0, 2, 2]], ids=["even", "uneven"])
def test_batch_norms_of_an_uploaded_onnx_are_folded_there(pads: list[int], tmp_path: Path) -> None:
    """Uneven padding is a step of its own in the network, though not in the file."""
    network = formats.read(_with_batch_norm(tmp_path / "upload.onnx", pads), "onnx")
    exported = TARGETS["onnxruntime"].export_float(Floats(network, tmp_path))
    written = onnx.load(str(exported.path))
    assert [node.op_type for node in written.graph.node] == ["Conv", "Relu", "Conv"]
    inputs = dict(samples(network, 16, seed=2).inputs)
    before = TARGETS["onnxruntime"].session(tmp_path / "upload.onnx", 1, True).run(inputs)
    after = TARGETS["onnxruntime"].session(exported.path, 1, True).run(inputs)
    np.testing.assert_allclose(after[0], before[0], rtol=1e-4, atol=1e-5)
    check_step("static", STEPS["static"], "onnxruntime", network, exported, inputs, before, tmp_path)


def _with_batch_norm(path: Path, pads: list[int]) -> Path:
    random = np.random.default_rng(0)
    arrays = {
        "w": random.normal(size=(6, 3, 3, 3)),
        "v": random.normal(size=(4, 6, 1, 1)),
        "gamma": random.uniform(0.5, 2, 6),
        "beta": random.normal(size=6),
        "mean": random.normal(size=6),
        "var": random.uniform(0.5, 2, 6),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=pads),
        helper.make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "var"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info("x", 1, ["b", 3, 8, 8]),
        helper.make_tensor_value_info("y", 1, ["b", 4, 8, 8]),
    ]
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in arrays.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def test_equal_weights_that_an_uploaded_onnx_holds_once(tmp_path: Path) -> None:
    """Two biases of zeros: the second layer reads an Identity of the first one's."""
    arrays = {"w": np.eye(4), "v": 2 * np.eye(4), "zeros": np.zeros(4)}
    nodes = [
        helper.make_node("Identity", ["zeros"], ["again"]),
        helper.make_node("Gemm", ["x", "w", "zeros"], ["h"]),
        helper.make_node("Gemm", ["h", "v", "again"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, 1, ["b", 4]) for name in ("x", "y")]
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in arrays.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    file = tmp_path / "upload.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(file))
    network = formats.read(file, "onnx")
    exported = TARGETS["onnxruntime"].export_float(Floats(network, tmp_path))
    assert [node.op_type for node in onnx.load(str(exported.path)).graph.node] == ["Gemm", "Gemm"]
    inputs = dict(samples(network, 16, seed=2).inputs)
    for label, step in STEPS.items():
        check_step(label, step, "onnxruntime", network, exported, inputs, [2 * inputs["x"]], tmp_path)


def test_an_embedding_of_constants_stays_in_float(tmp_path: Path) -> None:
    """Positions of a fixed length: what they look up is a constant in the file."""

    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.positions, self.head = nn.Embedding(6, 8), nn.Linear(8, 3)
            self.register_buffer("numbers", torch.arange(6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x + self.positions(self.numbers))

    network = network_of(Positions().eval(), (torch.randn(2, 6, 8),))
    exported = TARGETS["onnxruntime"].export_float(Floats(network, tmp_path))
    inputs = dict(samples(network, 16, seed=2).inputs)
    with torch.no_grad():
        floats = [value.numpy() for value in network.module(*tensors(inputs, network, "cpu"))]
    assert any("positions stays in float" in note for note in compress(network, STEPS["static"], tmp_path).notes)
    for label, step in STEPS.items():
        check_step(label, step, "onnxruntime", network, exported, inputs, floats, tmp_path)


def test_int8_artifacts_are_a_quarter_of_the_size_and_fused(tmp_path: Path) -> None:
    network = network_of(nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 256)), (torch.randn(2, 256),))
    folders = {target: tmp_path / target for target in CPU}
    for target, folder in folders.items():
        folder.mkdir()
        exported = TARGETS[target].export_float(Floats(network, folder))
        for label, step in STEPS.items():
            form = compress(network, step, folder, (target,)).quantized[target]
            path = folder / f"{label}{TARGETS[target].suffix}"
            TARGETS[target].export_quantized(form, exported, path)
            assert path.stat().st_size < 0.30 * exported.path.stat().st_size, (target, label)
    assert _operators(folders["onnxruntime"] / "static.onnx", tmp_path) == {"QuantizeLinear": 1, "QGemm": 2}
    assert _operators(folders["onnxruntime"] / "dynamic.onnx", tmp_path) == {"DynamicQuantizeMatMul": 2, "Relu": 1}


def test_a_residual_network_runs_on_integer_kernels(tmp_path: Path) -> None:
    network = build("residual")
    exported = TARGETS["onnxruntime"].export_float(Floats(network, tmp_path))
    form = compress(network, QuantizeStatic(), tmp_path).quantized["onnxruntime"]
    operators = _operators(TARGETS["onnxruntime"].export_quantized(form, exported, tmp_path / "q.onnx"), tmp_path)
    assert operators["QLinearConv"] == 4
    assert operators["QLinearAdd"] == 1
    assert operators["QGemm"] == 1
    assert operators["QuantizeLinear"] == 2  # the input, and the pooled values in front of the last layer
    assert "Conv" not in operators


def _operators(path: Path, folder: Path) -> Counter[str]:
    """What ONNX Runtime makes of a file."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(str(folder / "optimized.onnx")).graph.node)


def test_the_torch_artifact_needs_torch_alone(tmp_path: Path) -> None:
    network = build("residual")
    form = compress(network, QuantizeStatic(), tmp_path, ("torch",)).quantized["torch"]
    exported = TARGETS["torch"].export_float(Floats(network, tmp_path))
    path = TARGETS["torch"].export_quantized(form, exported, tmp_path / "q.pt2")
    code = (
        "import sys, torch; p = torch.export.load(sys.argv[1]); y = p.module()(torch.zeros(5, 3, 16, 16));"
        "kinds = {k: str(v.dtype) for k, v in p.state_dict.items() if k.endswith('weight')};"
        "bad = [m for m in sys.modules if m.startswith(('worker', 'torchao'))];"
        "print(len(kinds), set(kinds.values()), tuple((y[0] if isinstance(y, tuple) else y).shape), bad)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.strip() == "4 {'torch.int8'} (5, 10) []"


def test_sessions_of_other_runtimes_load_no_torch(tmp_path: Path) -> None:
    code = "import sys; from worker.engine.runtimes import SESSIONS; print(len(SESSIONS), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "6 False"


@pytest.mark.parametrize("entries", [["model.xml"], ["model.xml", "model.bin", "../evil"], ["a", "b"]])
def test_an_openvino_archive_with_other_files_is_refused(entries: list[str], tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in entries:
            archive.writestr(name, "x")
    with pytest.raises(InvalidModel):
        TARGETS["openvino"].session(path, 1, False)


def test_every_target_has_a_grid() -> None:
    assert set(TARGETS) == set(GRIDS)
    assert all(TARGETS[target].available() is None for target in CPU)
