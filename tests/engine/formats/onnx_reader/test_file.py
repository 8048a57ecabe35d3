"""Opening ONNX files: large weights stay where they lie, external data come from the zip beside the model."""

import tarfile
import zipfile

import numpy as np
import onnx
import pytest
import torch
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from worker.engine import formats
from worker.engine.errors import InvalidModel, UserError
from worker.engine.formats.onnx_reader.file import load
from worker.engine.formats.onnx_reader.outline import LARGE, outline

WIDTH = 160  # a weight of 102 kB


def model(count=3, width=WIDTH, dtype=np.float32):
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array((random.standard_normal((width, width)) / 16).astype(dtype), f"w{i}")
        for i in range(count)
    ]
    nodes, value = [], "x"
    for index in range(count):
        operator = ("MatMul", {}) if index % 2 else ("Gemm", {"transB": 1})
        nodes.append(helper.make_node(operator[0], [value, f"w{index}"], [f"y{index}"], **operator[1]))
        value = f"y{index}"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width]) for name in ("x", value)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def answer(proto, x):
    for node in proto.graph.node:
        weight = next(t for t in proto.graph.initializer if t.name == node.input[1])
        matrix = numpy_helper.to_array(weight)
        x = x @ (matrix.T if node.op_type == "Gemm" else matrix)
    return x


def check(path, proto):
    network = formats.read(path)
    x = np.random.default_rng(1).standard_normal((2, WIDTH)).astype(np.float32)
    np.testing.assert_allclose(network.module(torch.from_numpy(x))[0].detach(), answer(proto, x), rtol=1e-4, atol=1e-5)
    return network


def test_the_outline_has_everything_but_the_large_weights():
    proto = model()
    small, large = outline(memoryview(proto.SerializeToString()))
    assert len(small) < 2000
    assert {name: bytes(view) for name, view in large.items()} == {t.name: t.raw_data for t in proto.graph.initializer}
    read = onnx.ModelProto.FromString(small)
    assert [t.raw_data for t in read.graph.initializer] == [b"\0"] * 3
    for tensor, original in zip(read.graph.initializer, proto.graph.initializer, strict=True):
        tensor.raw_data = original.raw_data
    assert read == proto


def test_what_is_small_stays():
    data = model(width=8).SerializeToString()
    assert outline(memoryview(data)) == (data, {})


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_bytes_of_any_kind_are_walked_to_an_error_or_an_end(data):
    content = bytearray(model(count=1, width=16).SerializeToString())
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    try:
        small, large = outline(memoryview(content))
    except DecodeError:
        return
    assert small == bytes(content) and not large


def test_two_large_weights_of_one_name():
    proto = model(count=2)
    proto.graph.initializer[1].name = "w0"
    with pytest.raises(DecodeError, match="two weights"):
        outline(memoryview(proto.SerializeToString()))


def test_weights_at_odd_addresses_are_copied_and_the_source_is_whole(tmp_path):
    proto = model()
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    network = check(path, proto)
    assert all(p.data_ptr() % 4 == 0 for p in network.module.parameters())
    assert network.source.model == proto


def test_a_large_weight_that_does_not_fill_its_shape(tmp_path):
    proto = model()
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-8]
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(InvalidModel, match="weights_invalid"):
        formats.read(tmp_path / "m.onnx")


def external(folder, location="m.onnx.data", **options):
    folder.mkdir()
    onnx.save(model(), str(folder / "m.onnx"), save_as_external_data=True, location=location, size_threshold=0)
    return folder


def zipped(folder, path, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"export/{file.name}")
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_external_data_in_a_zip(method, tmp_path):
    path = zipped(external(tmp_path / "folder"), tmp_path / "m.zip", method)
    network = check(path, model())
    assert network.format == "onnx" and len(network.source.model.graph.initializer[0].raw_data) > LARGE


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_external_data_in_a_tar(mode, tmp_path):
    external(tmp_path / "folder")
    with tarfile.open(tmp_path / "m.tar", mode) as archive:
        archive.add(tmp_path / "folder", "export")
    check(tmp_path / "m.tar", model())


@pytest.mark.parametrize("location", ["weights.bin", "weights.pt"])
def test_external_data_by_a_name_that_pickles_have(location, tmp_path):
    check(zipped(external(tmp_path / "folder", location), tmp_path / "m.zip"), model())


def test_what_a_mac_adds_to_a_zip_is_left_out(tmp_path):
    path = zipped(external(tmp_path / "folder"), tmp_path / "m.zip")
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("__MACOSX/export/._m.onnx", "export/._m.onnx", "export/.DS_Store"):
            archive.writestr(name, b"\0\5\26\7")
    check(path, model())


def test_two_models_in_a_zip(tmp_path):
    folder = external(tmp_path / "folder")
    (folder / "other.onnx").write_bytes(model().SerializeToString())
    with pytest.raises(InvalidModel, match=r"file_incomplete.*2 \.onnx.*'m\.onnx', 'other\.onnx'"):
        formats.read(zipped(folder, tmp_path / "m.zip"))


def test_external_data_without_the_zip(tmp_path):
    with pytest.raises(InvalidModel, match=r"external_data_refused.*zip"):
        formats.read(external(tmp_path / "folder") / "m.onnx")


def change(folder, key, value):
    proto = onnx.load(str(folder / "m.onnx"), load_external_data=False)
    for tensor in proto.graph.initializer:
        entry = next((e for e in tensor.external_data if e.key == key), None) or tensor.external_data.add(key=key)
        entry.value = value
    (folder / "m.onnx").write_bytes(proto.SerializeToString())


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        ("location", "../../etc/passwd", "external_data_refused"),
        ("location", "/etc/passwd", "external_data_refused"),
        ("location", "", "external_data_refused"),
        ("location", "other.data", "file_incomplete"),
        ("offset", "-1", "weights_invalid"),
        ("offset", "9" * 30, "weights_invalid"),
        ("offset", "four", "weights_invalid"),
        ("length", "9" * 30, "weights_invalid"),
        ("length", "12", "weights_invalid"),
    ],
)
def test_external_data_that_lead_nowhere(key, value, code, tmp_path):
    folder = external(tmp_path / "folder")
    change(folder, key, value)
    with pytest.raises(UserError) as caught:
        formats.read(zipped(folder, tmp_path / "m.zip"))
    assert caught.value.code == code


def test_a_damaged_weight_in_the_zip(tmp_path):
    path = zipped(external(tmp_path / "folder"), tmp_path / "m.zip")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InvalidModel, match="file_damaged"):
        formats.read(path)


def test_loading_twice_gives_the_same(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(model().SerializeToString())
    assert load(path).model == load(path).model


def lying_outside(tensor, data):
    """The tensor, its bytes moved to the end of `data`."""
    offset = len(data)
    data += tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "m.data"), ("offset", offset), ("length", len(data) - offset)):
        tensor.external_data.add(key=key, value=str(value))


@pytest.mark.parametrize("width", [4, WIDTH])
def test_external_data_of_inner_graphs_and_constants_are_their_own(width, tmp_path):
    """A constant may be called as a weight of the graph; many of them, as Python reuses the addresses of wrappers."""
    random = np.random.default_rng(0)
    count = 40
    matrices = [(random.standard_normal((width, width)) / width**0.5).astype(np.float32) for _ in range(count)]
    inner, constant = (random.standard_normal((width, width)).astype(np.float32) for _ in range(2))
    result = [helper.make_tensor_value_info("r", TensorProto.FLOAT, ["n", width])]
    branches = {
        "then_branch": helper.make_graph(
            [helper.make_node("MatMul", ["x", "v"], ["r"])], "then", [], result, [numpy_helper.from_array(inner, "v")]
        ),
        "else_branch": helper.make_graph([helper.make_node("Identity", ["x"], ["r"])], "else", [], result),
    }
    nodes = [
        helper.make_node("If", ["yes"], ["h"], **branches),
        helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(constant, "w1")),
        helper.make_node("MatMul", ["h", "k"], ["y0"]),
        *(helper.make_node("MatMul", [f"y{i}", f"w{i}"], [f"y{i + 1}"]) for i in range(count)),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width]) for name in ("x", f"y{count}")]
    weights = [numpy_helper.from_array(matrix, f"w{i}") for i, matrix in enumerate(matrices)]
    yes = numpy_helper.from_array(np.array(True), "yes")
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [*weights, yes])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    data = bytearray()
    branch = next(a for a in proto.graph.node[0].attribute if a.name == "then_branch")
    for tensor in [*proto.graph.initializer[:-1], branch.g.initializer[0], proto.graph.node[1].attribute[0].t]:
        lying_outside(tensor, data)
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr("m.onnx", proto.SerializeToString())
        archive.writestr("m.data", bytes(data))
    x = random.standard_normal((2, width)).astype(np.float32)
    expected = np.linalg.multi_dot([x, inner, constant, *matrices])
    for _ in range(3):
        assert load(tmp_path / "m.zip").large.keys() == {f"w{i}" for i in range(count)}
        answered = formats.read(tmp_path / "m.zip").module(torch.from_numpy(x))[0].detach()
        np.testing.assert_allclose(answered, expected, rtol=1e-2, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("size", [16, 2 * LARGE])
def test_truth_values_are_0_and_1(size, tmp_path):
    for largest, accepted in ((1, True), (2, False)):
        mask = numpy_helper.from_array(np.zeros(size, bool), "m")
        mask.raw_data = bytes([largest]) + mask.raw_data[1:]
        ends = [helper.make_tensor_value_info(name, TensorProto.BOOL, ["n", size]) for name in "xy"]
        graph = helper.make_graph([helper.make_node("And", ["x", "m"], ["y"])], "g", ends[:1], ends[1:], [mask])
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
        if accepted:
            load(tmp_path / "m.onnx")
            continue
        with pytest.raises(InvalidModel, match=r"weights_invalid.*truth"):
            load(tmp_path / "m.onnx")
